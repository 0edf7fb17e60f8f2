"""House E: controllers, one a file in ``reconcilers``."""
