"""House B: the scheduler."""
