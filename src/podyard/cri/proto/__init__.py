"""Generated CRI messages; only podyard.cri sees them."""
