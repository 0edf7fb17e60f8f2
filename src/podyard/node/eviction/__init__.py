"""What the node does when memory, disk or processes run short."""
