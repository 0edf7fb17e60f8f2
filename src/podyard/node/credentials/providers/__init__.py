"""Programs that give out credentials: the kubelet's plugins, Docker's helpers."""
