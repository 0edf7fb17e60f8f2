"""House A: the API server."""
