"""`sgpud convert`: another plugin's configuration to sgpud.toml."""
