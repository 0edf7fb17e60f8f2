"""RuntimeClass to handler, and what a handler cannot do.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/ and
``pkg/kubelet/runtimeclass`` (v1.36).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import RuntimeHandler


@dataclass(frozen=True, slots=True)
class UseHandler:
    """Run the Pod with this handler; empty is the runtime's default."""

    handler: str


@dataclass(frozen=True, slots=True)
class ClassMissing:
    """The class does not exist; the message is the event's."""

    message: str


def decide_handler(
    pod: Pod, runtime_class: Document | None
) -> UseHandler | ClassMissing:
    """Return which handler runs the Pod.

    Args:
        pod: the Pod.
        runtime_class: the class it names; ``None`` where that does not exist.
    """
    name = pod.spec.runtime_class_name
    if not name:
        return UseHandler("")
    if runtime_class is None:
        return ClassMissing(f'runtimeclass.node.k8s.io "{name}" not found')
    return UseHandler(str(runtime_class.get("handler") or ""))


def find_handler(handlers: Iterable[RuntimeHandler], name: str) -> RuntimeHandler:
    """Return a handler's features; one the runtime does not list has none."""
    return next((h for h in handlers if h.name == name), RuntimeHandler(name))


def refuse_user_namespace(pod: Pod, handler: RuntimeHandler) -> str:
    """Return why the Pod cannot have its own user namespace; empty where it can."""
    if pod.spec.host_users is not False or handler.user_namespaces:
        return ""
    if not handler.name:
        return (
            "can't set `spec.hostUsers: false`, runtime does not support user "
            "namespaces"
        )
    return (
        "can't set `spec.hostUsers: false`, RuntimeClass handler "
        f'"{handler.name}" does not support user namespaces'
    )
