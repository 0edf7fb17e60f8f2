"""Where Pods come from: the API, and a directory of manifests."""
