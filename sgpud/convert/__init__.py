"""`sgpud convert`: another plugin's configuration to sgpud.toml, and what could not be taken over.

`nvidia.py` and `gke.py` read a document each; both fill a `Draft`, which `write.py` writes as TOML.
"""
