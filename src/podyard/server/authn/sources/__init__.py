"""Authenticators, one a file; each ends in ``PART``."""
