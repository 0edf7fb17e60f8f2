"""Generated containerd messages; only podyard.containerd sees them."""
