"""Kubernetes' container layer in one Python program."""

from typing import Final

__version__ = "0.1.0"

#: The Kubernetes release whose behaviour Podyard mirrors.
KUBERNETES_VERSION: Final = "v1.36.2"
