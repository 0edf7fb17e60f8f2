"""The words: types and rules of Kubernetes, pure."""
