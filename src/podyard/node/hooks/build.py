"""Texts and targets of hooks. Pure.

Source: ``pkg/kubelet/lifecycle/handlers.go`` and ``kuberuntime_container.go`` (v1.36).
"""

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.api.go_text import quote


def build_failure(pod: Pod, container: Container, handler: Handler, error: str) -> str:
    """Return the message of a failed hook, as the waiting state shows it."""
    where = f'for Container "{container.name}" in Pod "{pod.full_name}" failed'
    if handler.exec_command is not None:
        command = " ".join(handler.exec_command)
        return f"Exec lifecycle hook ([{command}]) {where} - error: {error}"
    if handler.http_get is not None:
        path = handler.http_get.path
        return f"HTTP lifecycle hook ({path}) {where} - error: {error}"
    if handler.sleep_s is not None:
        return f"Sleep lifecycle hook ({handler.sleep_s}) {where} - error: {error}"
    return f"TCP lifecycle hook {where} - error: {error}"


def build_exec_failure(
    command: tuple[str, ...], exit_code: int, stdout: bytes, stderr: bytes
) -> str:
    """Return what an exec hook that ended badly says of itself."""
    said = stderr.decode(errors="replace")
    output = (stdout + stderr).decode(errors="replace")
    return (
        f"command '{' '.join(command)}' exited with {exit_code}: {said}, "
        f"message: {quote(output)}"
    )
