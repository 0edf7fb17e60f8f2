"""The controllers, one a file; each ends in ``PART``."""
