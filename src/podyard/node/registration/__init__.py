"""The Node object: that it is there, what it has, and that it lives."""
