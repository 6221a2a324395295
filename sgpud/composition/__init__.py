"""The larger parts of the daemon, each built and connected; `app` puts them together."""
