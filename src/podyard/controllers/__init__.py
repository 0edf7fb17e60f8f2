"""House E: controllers, one a file."""
