"""The wire to image registries: challenges, tokens and manifests."""
