"""What a probe handler is, and what it is given."""

from collections.abc import Awaitable, Callable

from podyard.api.core_v1 import Container, Handler, Probe
from podyard.cri.services import RuntimeService
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One attempt.

    Attributes:
        healthy: what it found.
        output: the text for the event, where it is not healthy or ``warning``.
        warning: healthy, but the user should hear of it.
    """

    healthy: bool
    output: str = ""
    warning: bool = False


class ProbeFault(Exception):  # noqa: N818 - not an error of the container
    """The prober itself could not do its work; nothing is known of the container."""


#: One attempt; raises :class:`ProbeFault`.
Attempt = Callable[[], Awaitable[ProbeResult]]


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """The probe of one container instance, as a handler sees it.

    Attributes:
        container: the container.
        container_id: the runtime's id of the instance.
        pod_ip: where to connect unless the probe names a host; may be empty.
        probe: with ``timeout_s``.
        runtime: runs exec probes.
        grpc_check: asks a gRPC health service: host, port, service, timeout in
            seconds → ``None`` where it serves, else what is wrong.
    """

    container: Container
    container_id: str
    pod_ip: str
    probe: Probe
    runtime: RuntimeService
    grpc_check: Callable[[str, int, str, float], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class ProbeHandler:
    """How one kind of probe is run.

    Attributes:
        field: the name in the API.
        claims: whether the handler is of this kind. Pure.
        prepare: makes the attempts of one probe ready, once: what does not change
            from one to the next is not computed again. Raises :class:`ProbeFault`.
    """

    field: str
    claims: Callable[[Handler], bool]
    prepare: Callable[[ProbeContext, Handler], Attempt]
