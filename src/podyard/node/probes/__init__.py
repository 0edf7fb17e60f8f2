"""Probes of running containers and their verdicts."""
