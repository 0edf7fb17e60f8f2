"""Pod lifecycle events: when to look again, and whether the runtime is there."""
