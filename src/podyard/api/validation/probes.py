"""Rules of probes and lifecycle hooks.

Source: ``pkg/apis/core/validation`` (v1.36), and
https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.syntax import check_http_header, check_port_name, check_port_number
from podyard.api.validation.faults import check_not_negative, check_text
from podyard.api.validation.scope import Scope

_PROBE_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "sleep")
_PLAIN_SIGNALS: Final = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
]
#: Every signal a Linux container may name as its stop signal.
LINUX_SIGNALS: Final = frozenset(
    [
        *_PLAIN_SIGNALS,
        "SIGRTMIN",
        *(f"SIGRTMIN+{number}" for number in range(1, 16)),
        *(f"SIGRTMAX-{number}" for number in range(1, 15)),
        "SIGRTMAX",
    ]
)
WINDOWS_SIGNALS: Final = frozenset({"SIGKILL", "SIGTERM"})


def check_probe(
    probe: Document | None, field: str, scope: Scope
) -> Iterator[FieldError]:
    """Check one probe; ``field`` ends in its name."""
    if probe is None:
        return
    yield from _check_handler(probe, field, _PROBE_HANDLERS, None, scope)
    for name in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        yield from check_not_negative(f"{field}.{name}", probe.get(name))
    grace = probe.get("terminationGracePeriodSeconds")
    where = f"{field}.terminationGracePeriodSeconds"
    if grace is not None and grace <= 0:
        yield invalid(where, grace, "must be greater than 0")
    if field.endswith("readinessProbe"):
        if grace is not None:
            yield invalid(where, grace, "must not be set for readinessProbes")
    elif (probe.get("successThreshold") or 0) != 1:
        threshold = probe.get("successThreshold") or 0
        yield invalid(f"{field}.successThreshold", threshold, "must be 1")


def check_lifecycle(
    lifecycle: Document,
    field: str,
    scope: Scope,
    *,
    grace_s: int | None,
    os_name: str | None,
) -> Iterator[FieldError]:
    """Check the hooks and the stop signal of a container.

    Args:
        lifecycle: the field.
        field: its path.
        scope: where the spec stands.
        grace_s: the Pod's termination grace period, ``None`` where it has none.
        os_name: ``spec.os.name``, ``None`` where it is not set.
    """
    for name in ("postStart", "preStop"):
        if lifecycle.get(name) is not None:
            yield from _check_handler(
                lifecycle[name], f"{field}.{name}", _HOOK_HANDLERS, grace_s, scope
            )
    if lifecycle.get("stopSignal") is not None:
        yield from _check_stop_signal(lifecycle["stopSignal"], field, os_name, scope)


def _check_stop_signal(
    signal: str, field: str, os_name: str | None, scope: Scope
) -> Iterator[FieldError]:
    where = f"{field}.stopSignal"
    if not scope.gates.enabled("ContainerStopSignals"):
        # Upstream drops the field in silence; a stop signal that is not sent is worse.
        yield forbidden_field(
            where, "may only be set when the feature gate ContainerStopSignals is on"
        )
    elif os_name is None:
        yield forbidden_field(
            where, "may not be set for containers with empty `spec.os.name`"
        )
    else:
        known = WINDOWS_SIGNALS if os_name == "windows" else LINUX_SIGNALS
        if signal not in known:
            yield not_supported(where, signal, sorted(known))


def _check_handler(
    handler: Document,
    field: str,
    names: tuple[str, ...],
    grace_s: int | None,
    scope: Scope,
) -> Iterator[FieldError]:
    present = [name for name in names if handler.get(name) is not None]
    for index, name in enumerate(present):
        where = f"{field}.{name}"
        if index:
            yield forbidden_field(where, "may not specify more than 1 handler type")
            continue
        action = handler[name]
        match name:
            case "exec":
                if not action.get("command"):
                    yield required(f"{where}.command")
            case "httpGet":
                yield from _check_http_get(action, where)
            case "sleep":
                yield from _check_sleep(action, where, grace_s, scope)
            case _:
                yield from check_port(action.get("port"), f"{where}.port")
    if not present:
        yield required(field, "must specify a handler type")


def _check_http_get(action: Document, field: str) -> Iterator[FieldError]:
    if not action.get("path"):
        yield required(f"{field}.path")
    yield from check_port(action.get("port"), f"{field}.port")
    scheme = action.get("scheme") or ""
    if scheme not in {"HTTP", "HTTPS"}:
        yield not_supported(f"{field}.scheme", scheme, ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders") or ():
        yield from check_text(
            f"{field}.httpHeaders", header.get("name") or "", check_http_header
        )


def check_port(port: int | str | None, field: str) -> Iterator[FieldError]:
    """Check a port given as number or name."""
    if isinstance(port, str):
        yield from check_text(field, port, check_port_name)
    else:
        for text in check_port_number(port or 0):
            yield invalid(field, port or 0, text)


def _check_sleep(
    action: Document, field: str, grace_s: int | None, scope: Scope
) -> Iterator[FieldError]:
    seconds = action.get("seconds") or 0
    if grace_s is None:
        return
    zero_allowed = scope.gates.enabled("PodLifecycleSleepActionAllowZero")
    if seconds < 0 or seconds > grace_s or (seconds == 0 and not zero_allowed):
        yield invalid(
            field,
            seconds,
            "must be non-negative and less than terminationGracePeriodSeconds "
            f"({grace_s})",
        )
