"""The wire to the Kubernetes API."""
