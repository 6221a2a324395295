"""What is spoken with the API server: credentials, client, slices, claims."""
