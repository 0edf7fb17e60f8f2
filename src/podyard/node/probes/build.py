"""Commands, ports and texts of probes. Pure.

Source: ``pkg/kubelet/prober/prober.go`` and ``pkg/probe`` (v1.36).
"""

from podyard.api.core_v1 import Container
from podyard.api.expansion import expand

#: Output beyond this is cut.
MAX_OUTPUT_BYTES = 10 * 1024


def build_command(command: tuple[str, ...], container: Container) -> tuple[str, ...]:
    """Expand ``$(VAR)`` by the container's static variables only.

    Variables with ``valueFrom`` are empty here; those of Services and ``envFrom``
    stay as they are written.
    """
    env: dict[str, str] = {}
    for variable in container.env:
        value = variable.get("value") or ""
        env[variable.get("name", "")] = expand(value, env)
    return tuple(expand(word, env) for word in command)


def build_output(content: bytes) -> str:
    """Return output as an event may show it."""
    return content[:MAX_OUTPUT_BYTES].decode(errors="replace")
