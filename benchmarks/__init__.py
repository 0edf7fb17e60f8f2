"""Benchmarks: Podyard beside the raw CRI calls, in one run. Not tests."""
