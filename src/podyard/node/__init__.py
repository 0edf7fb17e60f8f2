"""House C: the node agent, our kubelet."""
