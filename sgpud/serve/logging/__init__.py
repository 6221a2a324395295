"""Log lines for terminals, files and the journal."""
