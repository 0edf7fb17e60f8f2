"""Images on the node: whether to pull, pulling, and what may be removed."""
