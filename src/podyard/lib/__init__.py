"""The ground: no Kubernetes word in it."""
