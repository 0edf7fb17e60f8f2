"""The only floor that knows everybody."""
