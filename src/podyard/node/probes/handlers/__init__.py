"""Probe handlers, one a file."""
