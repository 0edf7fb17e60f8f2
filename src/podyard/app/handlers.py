"""Runtime handlers: those of the config, and those this host has programs for.

Sources: containerd ``docs/cri/config.md`` and ``runtime-spec`` options of
``io.containerd.runc.v2``; the shims' own pages for gVisor
(https://gvisor.dev/docs/user_guide/containerd/quick_start/) and Kata Containers
(``docs/how-to/containerd-kata.md``).
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from podyard.api.syntax import check_dns1123_label
from podyard.containerd.build import RUNC_SHIM, RuntimeHandlerConfig
from podyard.lib.values import dataclass

#: Keys of an entry of ``runtimes:``.
_KEYS: Final = (
    "name",
    "type",
    "binary",
    "options",
    "podAnnotations",
    "containerAnnotations",
    "privilegedWithoutHostDevices",
)
#: Options of containerd's shim for OCI runtimes; it ignores others without a word.
_OCI_OPTIONS: Final = frozenset(
    {
        "BinaryName",
        "CriuImagePath",
        "CriuPath",
        "CriuWorkPath",
        "IoGid",
        "IoUid",
        "NoNewKeyring",
        "NoPivotRoot",
        "Root",
        "ShimCgroup",
        "SystemdCgroup",
        "TaskApiAddress",
        "TaskApiVersion",
    }
)
#: Shims of other runtimes: the program, and the handler it becomes.
_SHIMS: Final = (
    (
        "containerd-shim-runsc-v1",
        RuntimeHandlerConfig(
            "runsc", "io.containerd.runsc.v1", pod_annotations=("dev.gvisor.*",)
        ),
    ),
    (
        "containerd-shim-kata-v2",
        RuntimeHandlerConfig(
            "kata",
            "io.containerd.kata.v2",
            pod_annotations=("io.katacontainers.*",),
            privileged_without_host_devices=True,
        ),
    ),
)


def parse_handlers(
    entries: Iterable[Mapping[str, object]],
) -> tuple[RuntimeHandlerConfig, ...]:
    """Return the handlers of ``runtimes:`` in the config.

    Raises:
        ValueError: an entry is malformed; the message names it.
    """
    handlers: dict[str, RuntimeHandlerConfig] = {}
    for number, entry in enumerate(entries, 1):
        handler = _parse_handler(entry, number)
        if handler.name in handlers:
            raise ValueError(f'handler "{handler.name}" stands there twice')
        handlers[handler.name] = handler
    return tuple(handlers.values())


def _parse_handler(entry: Mapping[str, object], number: int) -> RuntimeHandlerConfig:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"entry {number}: a handler needs a name")
    faults = check_dns1123_label(name)
    if faults:
        raise ValueError(f'entry {number}: name "{name}": {faults[0]}')
    where = f'handler "{name}"'
    unknown = sorted(str(key) for key in set(entry) - set(_KEYS))
    if unknown:
        raise ValueError(
            f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(_KEYS)}"
        )
    runtime_type = _text(entry, "type", where) or RUNC_SHIM
    binary = _text(entry, "binary", where)
    if binary and "/" in binary and not binary.startswith("/"):
        raise ValueError(
            f'{where}: binary "{binary}" must be a path from the root, or a program '
            "of the search path"
        )
    return RuntimeHandlerConfig(
        name=name,
        runtime_type=runtime_type,
        binary=binary,
        options=_options(entry, where, oci=runtime_type == RUNC_SHIM),
        pod_annotations=_texts(entry, "podAnnotations", where),
        container_annotations=_texts(entry, "containerAnnotations", where),
        privileged_without_host_devices=_switch(
            entry, "privilegedWithoutHostDevices", where
        ),
    )


def _text(entry: Mapping[str, object], key: str, where: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} must be a string")
    return value


def _texts(entry: Mapping[str, object], key: str, where: str) -> tuple[str, ...]:
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{where}: {key} must be a list of strings")
    return tuple(value)


def _switch(entry: Mapping[str, object], key: str, where: str) -> bool:
    value = entry.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{where}: {key} must be true or false")
    return bool(value)


def _options(
    entry: Mapping[str, object], where: str, *, oci: bool
) -> dict[str, str | bool | int]:
    given = entry.get("options")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{where}: options must be a map")
    options: dict[str, str | bool | int] = {}
    for key, value in given.items():
        if not isinstance(value, str | bool | int):
            raise ValueError(
                f"{where}: option {key} must be a string, a number, true or false"
            )
        if oci and key not in _OCI_OPTIONS:
            raise ValueError(
                f"{where}: {RUNC_SHIM} has no option {key}; known: "
                f"{', '.join(sorted(_OCI_OPTIONS))}"
            )
        options[str(key)] = value
    return options


@dataclass(frozen=True, slots=True)
class OfferedHandlers:
    """Handlers of a private runtime, and the programs made for them.

    Attributes:
        handlers: those of the config, then those found on the host.
        programs: text of programs to be written, by path.
        missing: configured handlers whose program is not there, with its name.
    """

    handlers: tuple[RuntimeHandlerConfig, ...]
    programs: Mapping[Path, str]
    missing: Mapping[str, str]


def offer_handlers(
    configured: Iterable[RuntimeHandlerConfig],
    *,
    find_program: Callable[[str], Path | None],
    hidden_cgroup: Path | None,
    directory: Path,
) -> OfferedHandlers:
    """Return all handlers: the configured ones, crun, and shims that are installed.

    runc itself is not among them unless it is configured: it is always there.

    Args:
        configured: they win over found ones of the same name.
        find_program: a look-up on the search path.
        hidden_cgroup: a cgroup v2 tree that crun must not see, or ``None``.
        directory: where programs may be made.
    """
    handlers = {handler.name: handler for handler in configured}
    missing = {
        handler.name: handler.binary
        for handler in handlers.values()
        if handler.binary and find_program(handler.binary) is None
    }
    programs: dict[Path, str] = {}
    crun = find_program("crun")
    if crun is not None and "crun" not in handlers:
        if hidden_cgroup is None:
            handlers["crun"] = RuntimeHandlerConfig("crun", binary=str(crun))
        elif find_program("unshare") and find_program("umount"):
            wrapper = directory / "crun"
            programs[wrapper] = crun_wrapper(crun, hidden_cgroup)
            handlers["crun"] = RuntimeHandlerConfig("crun", binary=str(wrapper))
    for program, handler in _SHIMS:
        if find_program(program) is not None:
            handlers.setdefault(handler.name, handler)
    return OfferedHandlers(tuple(handlers.values()), programs, missing)


def crun_wrapper(crun: Path, hidden_cgroup: Path) -> str:
    """Return a program that runs crun where it does not see a cgroup tree.

    crun refuses a host whose cgroup v2 tree has controllers while v1 has others. It
    runs in a mount namespace of its own, which takes in what the host mounts but
    tells it nothing: the tree stays where it is for everyone else.
    """
    inner = f'umount {shlex.quote(str(hidden_cgroup))} && exec "$@"'
    return (
        "#!/bin/sh\n"
        f"exec unshare --mount --propagation slave sh -c {shlex.quote(inner)} crun "
        f'{shlex.quote(str(crun))} "$@"\n'
    )
