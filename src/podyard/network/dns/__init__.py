"""Cluster DNS: names of Services and Pods from memory, all others forwarded."""
