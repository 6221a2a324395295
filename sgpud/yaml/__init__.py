"""The YAML that machines and plain manifests write, without a library for all the rest of YAML."""
