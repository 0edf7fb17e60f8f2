"""Scheduler plugins, one a file; pure."""
