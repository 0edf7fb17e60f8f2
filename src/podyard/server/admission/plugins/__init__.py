"""Admission plugins, one a file; each ends in ``PART``."""
