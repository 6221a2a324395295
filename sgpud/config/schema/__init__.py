"""Every key: its type, its default, what it means."""
