"""``hostPath``: something of the node's own, checked for its type."""

from typing import Final

from podyard.node.volumes.host_path import HostPath
from podyard.node.volumes.parts import VolumePlugin

PART: Final = VolumePlugin(
    name="kubernetes.io/host-path",
    claims=lambda volume: volume.source == "hostPath",
    make=HostPath,
)
