"""What the API server refuses, one file a group."""
