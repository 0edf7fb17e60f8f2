"""Registry credentials: where they come from and which fit an image."""
