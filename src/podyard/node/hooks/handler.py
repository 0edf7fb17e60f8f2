"""What a hook handler is, and what it is given."""

from collections.abc import Awaitable, Callable

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.cri.services import RuntimeService
from podyard.lib.values import dataclass
from podyard.node.hooks.parts import DELIVERY_ANNOTATION

#: Keeps what an exec hook has put out: stdout, stderr, exit code.
KeepOutput = Callable[[bytes, bytes, int], Awaitable[None]]


async def keep_nothing(_stdout: bytes, _stderr: bytes, _exit_code: int) -> None:
    """Let the output go."""


@dataclass(frozen=True, slots=True)
class HookContext:
    """One delivery, as a handler sees it.

    Attributes:
        pod: the Pod.
        container: the container whose hook it is.
        container_id: the runtime's id of the instance.
        pod_ips: the Pod's addresses; the node's for a Pod on the host's network.
        runtime: runs exec hooks.
        documented: whether the documentation's rules count where the kubelet's differ.
        warn: records a Warning event on the Pod: reason, message.
        delivery_id: the same for every attempt of one delivery.
        attempt: from 1; higher where an earlier one may have been cut off.
        keep_output: keeps what an exec hook has put out.
    """

    pod: Pod
    container: Container
    container_id: str
    pod_ips: tuple[str, ...]
    runtime: RuntimeService
    documented: bool
    warn: Callable[[str, str], None]
    delivery_id: str = ""
    attempt: int = 1
    keep_output: KeepOutput = keep_nothing

    def tells(self, how: str) -> bool:
        """Return whether the Pod asks that handlers be told which delivery it is."""
        wanted = self.pod.metadata.annotations.get(DELIVERY_ANNOTATION, "")
        return how in {word.strip() for word in str(wanted).split(",")}


@dataclass(frozen=True, slots=True)
class HookHandler:
    """How one kind of hook is run.

    Attributes:
        field: the name in the API: ``exec``, ``httpGet``, ``sleep``, ``tcpSocket``.
        claims: whether the handler is of this kind. Pure.
        run: does it; raises :class:`HookError`.
    """

    field: str
    claims: Callable[[Handler], bool]
    run: Callable[[HookContext, Handler], Awaitable[None]]
