"""Hook handlers, one a file."""
