"""One Pod made so: observe, decide, act."""
