"""Volumes on the node: what is mounted for a Pod, and how a container sees it."""
