"""Who may use an image that is on the node: records of pulls, and what they allow."""
