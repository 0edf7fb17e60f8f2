"""The private containerd: its config, its life, its events, its images."""
