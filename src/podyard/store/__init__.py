"""The one append-only log under the API server."""
