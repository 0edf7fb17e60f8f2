"""The private containerd's configuration and its CNI network, as text.

Config version 2 is for containerd 1.6 and 1.7, version 3 for 2.x; their sections
are described by ``containerd config default`` of each release.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final, TypeAlias

from podyard.lib.values import dataclass

#: A TOML value: the few kinds that stand in such a config.
Toml: TypeAlias = "str | bool | int | list[str] | dict[str, Toml]"
Table: TypeAlias = dict[str, Toml]

#: The runtime type of containerd's own shim for OCI runtimes.
RUNC_SHIM: Final = "io.containerd.runc.v2"

#: The Kubernetes namespace inside containerd.
NAMESPACE: Final = "k8s.io"

_CRI_2: Final = "io.containerd.grpc.v1.cri"
_CRI_3_RUNTIME: Final = "io.containerd.cri.v1.runtime"
_CRI_3_IMAGES: Final = "io.containerd.cri.v1.images"

#: Plugins that CRI does without. Each costs start time, memory or a warning.
_UNUSED_PLUGINS: Final = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
_UNUSED_PLUGINS_2X: Final = (
    "io.containerd.image-verifier.v1.bindir",
    "io.containerd.monitor.task.v1.cgroups",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.erofs",
)


@dataclass(frozen=True, slots=True)
class RuntimeHandlerConfig:
    """One handler that a RuntimeClass may name.

    Attributes:
        name: the handler.
        runtime_type: the shim, ``io.containerd.runc.v2`` for OCI runtimes.
        binary: the OCI runtime's program, or that of another shim; empty for the
            usual one.
        options: further shim options by their containerd names.
        pod_annotations: annotation globs passed on to the sandbox.
        container_annotations: annotation globs passed on to containers.
        privileged_without_host_devices: as containerd's setting of that name.
    """

    name: str
    runtime_type: str = RUNC_SHIM
    binary: str = ""
    options: Mapping[str, str | bool | int] = field(default_factory=dict)
    pod_annotations: tuple[str, ...] = ()
    container_annotations: tuple[str, ...] = ()
    privileged_without_host_devices: bool = False


@dataclass(frozen=True, slots=True)
class ContainerdConfig:
    """What one private containerd is made of. Paths are absolute.

    Attributes:
        root: content and snapshots; survives.
        state: sockets and mounts of running tasks; dies with the machine.
        socket: the gRPC address.
        runc_root: where runc keeps its state.
        network: name of the CNI network.
        pod_cidrs: the addresses of Pods; every Pod gets one of each.
        cni_state_dir: where host-local keeps the addresses in use.
        registry_dir: ``hosts.toml`` directories.
        systemd_cgroup: systemd makes the cgroups (else cgroupfs).
        restrict_oom_score_adj: the host lacks CAP_SYS_RESOURCE.
        oom_score: of containerd itself.
        max_log_line_bytes: longer lines are split in the log file.
        ignore_image_volumes: do not make volumes for an image's ``VOLUME``.
    """

    root: str
    state: str
    socket: str
    runc_root: str
    sandbox_image: str
    network: str
    bridge: str
    pod_cidrs: tuple[str, ...]
    cni_conf_dir: str
    cni_bin_dir: str
    cni_state_dir: str
    registry_dir: str
    systemd_cgroup: bool = False
    restrict_oom_score_adj: bool = False
    oom_score: int = 0
    snapshotter: str = "overlayfs"
    max_log_line_bytes: int = 16384
    ignore_image_volumes: bool = False
    enable_cdi: bool = True
    enable_selinux: bool = False
    max_concurrent_downloads: int = 3
    runtimes: tuple[RuntimeHandlerConfig, ...] = ()
    log_level: str = "info"


def build_config(
    config: ContainerdConfig,
    *,
    version: tuple[int, int],
    drop_ins: Sequence[Mapping[str, object]] = (),
) -> str:
    """Return the text of ``config.toml``.

    Args:
        config: the settings.
        version: containerd's major and minor version.
        drop_ins: decoded TOML tables laid over ours, in order; containerd's own
            ``imports`` would replace whole plugin sections.
    """
    if version >= (2, 0):
        table = _config_3(config, version)
    else:
        table = _config_2(config, version)
    for drop_in in drop_ins:
        table = merge_tables(table, drop_in)
    return dump_toml(table)


def _daemon(config: ContainerdConfig, *, format_version: int) -> Table:
    unused = [*_UNUSED_PLUGINS, *(_UNUSED_PLUGINS_2X if format_version > 2 else ())]
    return {
        "version": format_version,
        "root": config.root,
        "state": config.state,
        "oom_score": config.oom_score,
        "disabled_plugins": sorted(unused),
        "grpc": {"address": config.socket},
        "debug": {"level": config.log_level},
    }


def _runtimes(config: ContainerdConfig) -> Table:
    handlers = {"runc": RuntimeHandlerConfig("runc")}
    handlers.update((handler.name, handler) for handler in config.runtimes)
    return {name: _runtime(config, handler) for name, handler in handlers.items()}


def _runtime(config: ContainerdConfig, handler: RuntimeHandlerConfig) -> Toml:
    table: Table = {
        "runtime_type": handler.runtime_type,
        "pod_annotations": list(handler.pod_annotations),
        "container_annotations": list(handler.container_annotations),
        "privileged_without_host_devices": handler.privileged_without_host_devices,
    }
    options: Table = dict(handler.options)
    if handler.runtime_type == RUNC_SHIM:
        options.setdefault("Root", config.runc_root)
        options.setdefault("SystemdCgroup", config.systemd_cgroup)
        if handler.binary:
            options.setdefault("BinaryName", handler.binary)
    elif handler.binary:
        table["runtime_path"] = handler.binary
    if options:
        table["options"] = options
    return table


def _cri_runtime(config: ContainerdConfig, version: tuple[int, int]) -> Table:
    """Return what versions 2 and 3 name alike."""
    table: Table = {
        "enable_selinux": config.enable_selinux,
        "enable_unprivileged_icmp": True,
        "enable_unprivileged_ports": True,
        "ignore_image_defined_volumes": config.ignore_image_volumes,
        "max_container_log_line_size": config.max_log_line_bytes,
        "netns_mounts_under_state_dir": True,
        "restrict_oom_score_adj": config.restrict_oom_score_adj,
    }
    if version >= (1, 7):
        table["enable_cdi"] = config.enable_cdi
    return table


def _config_2(config: ContainerdConfig, version: tuple[int, int]) -> Table:
    cri = _cri_runtime(config, version) | {
        "disable_tcp_service": True,
        "stream_server_address": "127.0.0.1",
        "stream_server_port": "0",
        "max_concurrent_downloads": config.max_concurrent_downloads,
        "sandbox_image": config.sandbox_image,
        "cni": {"bin_dir": config.cni_bin_dir, "conf_dir": config.cni_conf_dir},
        "containerd": {
            "default_runtime_name": "runc",
            "snapshotter": config.snapshotter,
            "runtimes": _runtimes(config),
        },
        "registry": {"config_path": config.registry_dir},
    }
    return _daemon(config, format_version=2) | {"plugins": {_CRI_2: cri}}


def _config_3(config: ContainerdConfig, version: tuple[int, int]) -> Table:
    cni: Table = {
        "conf_dir": config.cni_conf_dir,
        "use_internal_loopback": True,
    }
    if version >= (2, 1):
        cni["bin_dirs"] = [config.cni_bin_dir]
    else:
        cni["bin_dir"] = config.cni_bin_dir
    runtime = _cri_runtime(config, version) | {
        "cni": cni,
        "containerd": {"default_runtime_name": "runc", "runtimes": _runtimes(config)},
    }
    images: Table = {
        "snapshotter": config.snapshotter,
        "max_concurrent_downloads": config.max_concurrent_downloads,
        # A pull that was reported as done survives a power cut.
        "image_pull_with_sync_fs": True,
        "pinned_images": {"sandbox": config.sandbox_image},
        "registry": {"config_path": config.registry_dir},
    }
    streaming: Table = {
        "disable_tcp_service": True,
        "stream_server_address": "127.0.0.1",
        "stream_server_port": "0",
    }
    return _daemon(config, format_version=3) | {
        "plugins": {
            _CRI_3_RUNTIME: runtime,
            _CRI_3_IMAGES: images,
            _CRI_2: streaming,
        }
    }


def build_cni(config: ContainerdConfig) -> str:
    """Return the text of the network's ``.conflist``.

    A plain bridge: masquerade and host ports are rules of our own table, so neither
    ``ipMasq`` nor portmap takes part. The MTU is the bridge's own. In hairpin mode
    the plugin lets IPv6 addresses be used without asking for duplicates, which would
    take a second; host-local gives none twice.
    """
    routes = [
        {"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in config.pod_cidrs
    ]
    bridge = {
        "type": "bridge",
        "bridge": config.bridge,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": config.cni_state_dir,
            "ranges": [[{"subnet": cidr}] for cidr in config.pod_cidrs],
            "routes": routes,
        },
    }
    network = {"cniVersion": "0.4.0", "name": config.network, "plugins": [bridge]}
    return json.dumps(network, indent=2) + "\n"


def merge_tables(below: Table, above: Mapping[str, object]) -> Table:
    """Return ``below`` with ``above`` laid over it; tables merge, values replace."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = merge_tables(under if isinstance(under, dict) else {}, value)
        else:
            merged[key] = _plain(value)
    return merged


def _plain(value: object) -> Toml:
    match value:
        case bool() | int() | str():
            return value
        case list():
            return [str(item) for item in value]
        case _:
            return str(value)


def dump_toml(table: Table) -> str:
    """Return a table as TOML text: values first, then its tables."""
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Table, path: tuple[str, ...]) -> Iterable[str]:
    values = {k: v for k, v in table.items() if not isinstance(v, dict)}
    if path and (values or not table):
        yield ""
        yield "[" + ".".join(_toml(part) for part in path) + "]"
    for key, value in values.items():
        yield f"{_toml(key)} = {_toml(value)}"
    for key, inner in table.items():
        if isinstance(inner, dict):
            yield from _lines(inner, (*path, key))


def _toml(value: Toml) -> str:
    # JSON's text of a value is TOML's, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of ``containerd --version``.

    Raises:
        ValueError: there is no version in the text.
    """
    for word in text.split():
        parts = word.lstrip("v").split(".")
        if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
            return int(parts[0]), int(parts[1])
    raise ValueError(f"no containerd version in {text!r}")
