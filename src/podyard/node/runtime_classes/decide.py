"""RuntimeClass to handler, and what a handler cannot do.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/ and
``pkg/kubelet/runtimeclass`` (v1.36).
"""

import re
from collections.abc import Iterable
from typing import Final

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import RuntimeHandler
from podyard.lib.values import dataclass

#: The page's handler for Docker, and what cri-dockerd calls itself.
DOCKER: Final = "docker"

#: What runtimes say of a handler they do not have: containerd's and CRI-O's words.
_NO_HANDLER: Final = re.compile(
    r'no runtime for "[^"]*" is configured|failed to find runtime handler '
)
#: What containerd says of a handler whose program is missing or ends without a word;
#: a runtime that can speak says itself what is wrong with one Pod.
_BROKEN: Final = re.compile(
    r"OCI runtime create failed: unable to retrieve OCI runtime error"
    r"|failed to start shim: .*(binary not installed|fork/exec|executable file)"
    r"|failed to resolve runtime path: "
)
#: Signs of a machine that is short of something: it may work another time.
_PASSING: Final = re.compile(
    r"resource temporarily unavailable|cannot allocate memory|too many open files"
    r"|no space left on device|text file busy|signal: killed|deadline exceeded"
    r"|context canceled"
)


@dataclass(frozen=True, slots=True)
class UseHandler:
    """Run the Pod with this handler; empty is the runtime's default."""

    handler: str


@dataclass(frozen=True, slots=True)
class ClassMissing:
    """The class does not exist; the message is the event's."""

    message: str


def decide_handler(
    pod: Pod, runtime_class: Document | None, *, runtime_name: str = ""
) -> UseHandler | ClassMissing:
    """Return which handler runs the Pod.

    Args:
        pod: the Pod.
        runtime_class: the class it names; ``None`` where that does not exist.
        runtime_name: what the runtime calls itself; with Docker's, the handler
            ``docker`` is its default one, elsewhere a handler like any other.
    """
    name = pod.spec.runtime_class_name
    if not name:
        return UseHandler("")
    if runtime_class is None:
        return ClassMissing(f'runtimeclass.node.k8s.io "{name}" not found')
    handler = str(runtime_class.get("handler") or "")
    if handler == DOCKER and runtime_name == DOCKER:
        return UseHandler("")
    return UseHandler(handler)


def cannot_run(handler: str, failure: str) -> bool:
    """Say whether a runtime's error means that it cannot run the handler at all.

    The default handler is never meant: a runtime without it runs nothing.

    Args:
        handler: that of the sandbox.
        failure: what the runtime said when it was to make a sandbox or container.
    """
    if not handler or _PASSING.search(failure):
        return False
    return bool(_NO_HANDLER.search(failure) or _BROKEN.search(failure))


def list_handlers(handlers: Iterable[str]) -> str:
    """Return the handlers there are, to be added to an error; may be empty."""
    names = sorted(name for name in handlers if name)
    return f" (runtime handlers of this node: {', '.join(names)})" if names else ""


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
