"""Defaults of EndpointSlices.

Source: ``pkg/apis/discovery/v1/defaults.go`` (v1.36).
"""

from podyard.api.defaults.pod_spec import fill
from podyard.api.documents import Document


def default_endpoint_slice(endpoint_slice: Document) -> None:
    """Fill in the name and protocol of every port."""
    for port in endpoint_slice.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        fill(port, {"protocol": "TCP"})
