"""Manual pages and completions, made from the argument parser and the schema."""
