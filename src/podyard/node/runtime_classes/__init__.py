"""RuntimeClass to runtime handler."""
