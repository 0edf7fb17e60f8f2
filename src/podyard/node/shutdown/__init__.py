"""In which order Pods stop when the node goes away."""
