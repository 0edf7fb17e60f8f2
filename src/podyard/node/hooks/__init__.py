"""Container lifecycle hooks: what they do, and that they are delivered."""
