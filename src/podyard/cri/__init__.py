"""The one runtime seam: CRI v1 over gRPC."""
