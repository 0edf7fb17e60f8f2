"""Volume kinds, one a module."""
