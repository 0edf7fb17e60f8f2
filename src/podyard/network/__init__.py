"""House D: packets on this machine."""
