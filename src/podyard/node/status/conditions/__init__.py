"""The conditions of a Pod that its agent owns."""
