"""Container logs on disk: their rotation."""
