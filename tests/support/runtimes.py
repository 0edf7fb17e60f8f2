"""A CRI runtime under test, the fake or a real one."""

from dataclasses import dataclass

from podyard.api.runtime import SandboxConfig
from podyard.cri.services import ImageService, RuntimeService
from support.containerd import RunningContainerd, sandbox_config


@dataclass(frozen=True, slots=True)
class Subject:
    """A runtime under the contract, with what differs from one to the other."""

    runtime: RuntimeService
    images: ImageService
    real: RunningContainerd | None

    def sandbox(
        self, name: str = "pod", *, host_network: bool = False, log_directory: str = ""
    ) -> SandboxConfig:
        """Return a sandbox config that this runtime can run."""
        row = None if self.real is None else self.real.row
        return sandbox_config(
            row, name=name, host_network=host_network, log_directory=log_directory
        )
