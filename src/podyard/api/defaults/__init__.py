"""What the API server fills in, one file a group."""
