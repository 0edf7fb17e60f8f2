"""What the API is told about a Pod."""
