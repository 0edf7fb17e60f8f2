"""Whether the node itself takes a Pod."""
