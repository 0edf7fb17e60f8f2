"""Runtime handlers as configuration for runtimes that people run themselves. Pure.

Sources: https://kubernetes.io/docs/concepts/containers/runtime-class/#cri-configuration,
https://github.com/containerd/containerd/blob/main/docs/cri/config.md and
https://github.com/cri-o/cri-o/blob/main/docs/crio.conf.5.md
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from podyard.containerd.build import RUNC_SHIM, RuntimeHandlerConfig

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_CRI: Final = "io.containerd.grpc.v1.cri"
_CRI_2X: Final = "io.containerd.cri.v1.runtime"


def containerd_snippet(handlers: Iterable[RuntimeHandlerConfig]) -> str:
    """Return the tables for ``/etc/containerd/config.toml`` (version 2)."""
    lines = [
        f'# containerd 2.x with version = 3: "{_CRI_2X}" instead of "{_CRI}"',
    ]
    for handler in handlers:
        path = ("plugins", _CRI, "containerd", "runtimes", handler.name)
        options: dict[str, str | bool | int] = dict(handler.options)
        if handler.binary and handler.runtime_type == RUNC_SHIM:
            options.setdefault("BinaryName", handler.binary)
        values: dict[str, str | bool | int] = {"runtime_type": handler.runtime_type}
        if handler.binary and handler.runtime_type != RUNC_SHIM:
            values["runtime_path"] = handler.binary
        lines += ["", *_table(path, values)]
        if options:
            lines += _table((*path, "options"), options)
    return "\n".join(lines) + "\n"


def crio_snippet(handlers: Iterable[RuntimeHandlerConfig]) -> str:
    """Return the tables for a file in ``/etc/crio/crio.conf.d``."""
    lines = ["# CRI-O knows OCI runtimes by their program and shims by theirs"]
    for handler in handlers:
        values: dict[str, str | bool | int]
        if handler.runtime_type == RUNC_SHIM:
            program = handler.binary or f"/usr/bin/{handler.name}"
            values = {"runtime_path": program, "runtime_type": "oci"}
            root = handler.options.get("Root")
            if root:
                values["runtime_root"] = root
        else:
            values = {"runtime_path": _shim(handler), "runtime_type": "vm"}
        lines += ["", *_table(("crio", "runtime", "runtimes", handler.name), values)]
    return "\n".join(lines) + "\n"


def _shim(handler: RuntimeHandlerConfig) -> str:
    """Return a shim's program: ``io.containerd.kata.v2`` is containerd-shim-kata-v2."""
    if handler.binary:
        return handler.binary
    _, _, rest = handler.runtime_type.partition("io.containerd.")
    name = (rest or handler.runtime_type).replace(".", "-")
    return f"/usr/bin/containerd-shim-{name}"


def _table(
    path: tuple[str, ...], values: Mapping[str, str | bool | int]
) -> Iterator[str]:
    yield f"[{'.'.join(map(_key, path))}]"
    for key, value in values.items():
        yield f"  {_key(key)} = {json.dumps(value, ensure_ascii=False)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)
