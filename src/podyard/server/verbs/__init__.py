"""The verbs: what is done with a kind once the request may pass."""
