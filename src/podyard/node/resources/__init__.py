"""What a Pod may use: cgroup names, limits, and the cgroups themselves."""
