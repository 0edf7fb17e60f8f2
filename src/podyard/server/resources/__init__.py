"""The kinds the API server serves: one module a kind, ending in ``PART``."""
