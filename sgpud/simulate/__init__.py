"""`sgpud simulate`: pods from a file, played on nodes that exist in files only."""
