"""Credential sources, one a module."""
