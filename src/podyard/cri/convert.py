"""Our own types to CRI messages and back: nothing but the shape changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from podyard.api.observed import (
    ContainerEvent,
    ContainerEventType,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ContainerUser,
    FilesystemUsage,
    Image,
    PodSandbox,
    RuntimeCondition,
    RuntimeHandler,
    RuntimeStatus,
    SandboxState,
)
from podyard.api.runtime import (
    ContainerConfig,
    ContainerSecurity,
    IdMapping,
    ImageAuth,
    Label,
    LinuxResources,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    ProfileType,
    SandboxConfig,
    SandboxSecurity,
    SecurityProfile,
    SELinuxOptions,
)
from podyard.cri.proto import podyard_cri_pb2 as pb

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(timestamp_ns: int) -> datetime | None:
    """Return the wall time of CRI nanoseconds; 0 means not yet, hence ``None``."""
    if timestamp_ns <= 0:
        return None
    return _EPOCH + timedelta(microseconds=timestamp_ns // 1000)


def _at(timestamp_ns: int) -> datetime:
    return to_datetime(timestamp_ns) or _EPOCH


def _int64(value: int | None) -> pb.Int64Value | None:
    return None if value is None else pb.Int64Value(value=value)


def _id_mappings(mappings: Sequence[IdMapping]) -> list[pb.IDMapping]:
    return [
        pb.IDMapping(host_id=m.host_id, container_id=m.container_id, length=m.length)
        for m in mappings
    ]


def _namespaces(options: NamespaceOptions) -> pb.NamespaceOption:
    userns = None
    if options.userns is not None:
        userns = pb.UserNamespace(
            mode=pb.NamespaceMode.POD,
            uids=_id_mappings(options.userns.uids),
            gids=_id_mappings(options.userns.gids),
        )
    return pb.NamespaceOption(
        network=pb.NamespaceMode.Name(options.network.value),
        pid=pb.NamespaceMode.Name(options.pid.value),
        ipc=pb.NamespaceMode.Name(options.ipc.value),
        target_id=options.target_id,
        userns_options=userns,
    )


def _profile(profile: SecurityProfile | None) -> pb.SecurityProfile | None:
    if profile is None:
        return None
    return pb.SecurityProfile(
        profile_type=pb.SecurityProfile.ProfileType.Name(profile.type.value),
        localhost_ref=profile.localhost_ref,
    )


def _selinux(options: SELinuxOptions | None) -> pb.SELinuxOption | None:
    if options is None:
        return None
    return pb.SELinuxOption(
        user=options.user, role=options.role, type=options.type, level=options.level
    )


def _old_apparmor(profile: SecurityProfile | None) -> str:
    """Return the string that runtimes without the message field read."""
    if profile is None:
        return ""
    match profile.type:
        case ProfileType.RUNTIME_DEFAULT:
            return "runtime/default"
        case ProfileType.UNCONFINED:
            return "unconfined"
        case ProfileType.LOCALHOST:
            return f"localhost/{profile.localhost_ref}"


def to_resources(resources: LinuxResources) -> pb.LinuxContainerResources:
    """Return ``LinuxContainerResources``."""
    return pb.LinuxContainerResources(
        cpu_period=resources.cpu_period_us,
        cpu_quota=resources.cpu_quota_us,
        cpu_shares=resources.cpu_shares,
        memory_limit_in_bytes=resources.memory_limit_bytes,
        memory_swap_limit_in_bytes=resources.memory_swap_limit_bytes,
        oom_score_adj=resources.oom_score_adj,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        hugepage_limits=[
            pb.HugepageLimit(page_size=size, limit=limit)
            for size, limit in resources.hugepage_limits
        ],
        unified=dict(resources.unified),
    )


def _resources(resources: LinuxResources | None) -> pb.LinuxContainerResources | None:
    return None if resources is None else to_resources(resources)


def _sandbox_security(security: SandboxSecurity) -> pb.LinuxSandboxSecurityContext:
    return pb.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(security.namespaces),
        selinux_options=_selinux(security.selinux),
        run_as_user=_int64(security.run_as_user),
        run_as_group=_int64(security.run_as_group),
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=pb.SupplementalGroupsPolicy.Name(
            security.supplemental_groups_policy.value
        ),
        privileged=security.privileged,
        seccomp=_profile(security.seccomp),
        apparmor=_profile(security.apparmor),
    )


def _container_security(
    security: ContainerSecurity,
) -> pb.LinuxContainerSecurityContext:
    return pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=security.capabilities.add,
            drop_capabilities=security.capabilities.drop,
        ),
        privileged=security.privileged,
        namespace_options=_namespaces(security.namespaces),
        selinux_options=_selinux(security.selinux),
        run_as_user=_int64(security.run_as_user),
        run_as_group=_int64(security.run_as_group),
        run_as_username=security.run_as_username,
        readonly_rootfs=security.readonly_rootfs,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=pb.SupplementalGroupsPolicy.Name(
            security.supplemental_groups_policy.value
        ),
        no_new_privs=security.no_new_privs,
        masked_paths=security.masked_paths,
        readonly_paths=security.readonly_paths,
        seccomp=_profile(security.seccomp),
        apparmor=_profile(security.apparmor),
        apparmor_profile=_old_apparmor(security.apparmor),
    )


def to_sandbox_config(config: SandboxConfig) -> pb.PodSandboxConfig:
    """Return ``PodSandboxConfig``."""
    dns = None
    if config.dns is not None:
        dns = pb.DNSConfig(
            servers=config.dns.servers,
            searches=config.dns.searches,
            options=config.dns.options,
        )
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=config.name,
            uid=config.uid,
            namespace=config.namespace,
            attempt=config.attempt,
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        dns_config=dns,
        port_mappings=[
            pb.PortMapping(
                protocol=mapping.protocol or "TCP",
                container_port=mapping.container_port,
                host_port=mapping.host_port,
                host_ip=mapping.host_ip,
            )
            for mapping in config.port_mappings
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            security_context=_sandbox_security(config.security),
            sysctls=dict(config.sysctls),
            overhead=_resources(config.overhead),
            resources=_resources(config.resources),
        ),
    )


def _mount(mount: Mount) -> pb.Mount:
    image = pb.ImageSpec(image=mount.image) if mount.image else None
    return pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.readonly,
        recursive_read_only=mount.recursive_read_only,
        selinux_relabel=mount.selinux_relabel,
        propagation=pb.MountPropagation.Name(mount.propagation.value),
        image=image,
        image_sub_path=mount.image_sub_path,
        uidMappings=_id_mappings(mount.uid_mappings),
        gidMappings=_id_mappings(mount.gid_mappings),
    )


def _signal(name: str) -> str:
    """Return CRI's name of a signal; ``SIGRTMIN+3`` is ``SIGNAL_SIGRTMINPLUS3``."""
    if not name:
        return "SIGNAL_RUNTIME_DEFAULT"
    return "SIGNAL_" + name.replace("+", "PLUS").replace("-", "MINUS")


def to_container_config(config: ContainerConfig) -> pb.ContainerConfig:
    """Return ``ContainerConfig``.

    Raises:
        ValueError: the stop signal is none of CRI's.
    """
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=pb.ImageSpec(
            image=config.image, user_specified_image=config.user_specified_image
        ),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        # Services bring thousands: mappings take a third of what messages take.
        envs=[{"key": env.name, "value": env.value} for env in config.envs],
        mounts=[_mount(mount) for mount in config.mounts],
        devices=[
            pb.Device(
                container_path=device.container_path,
                host_path=device.host_path,
                permissions=device.permissions,
            )
            for device in config.devices
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=to_resources(config.resources),
            security_context=_container_security(config.security),
        ),
        stop_signal=_signal(config.stop_signal),
    )


def to_auth(auth: ImageAuth | None) -> pb.AuthConfig | None:
    """Return ``AuthConfig``."""
    if auth is None:
        return None
    return pb.AuthConfig(
        username=auth.username,
        password=auth.password,
        auth=auth.auth,
        server_address=auth.server_address,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


def from_sandbox(item: pb.PodSandbox) -> PodSandbox:
    """Return a sandbox of a list."""
    return PodSandbox(
        id=item.id,
        name=item.metadata.name,
        namespace=item.metadata.namespace,
        uid=item.metadata.uid,
        attempt=item.metadata.attempt,
        state=SandboxState(item.state),
        created_at=_at(item.created_at),
        runtime_handler=item.runtime_handler,
        labels=dict(item.labels),
        annotations=dict(item.annotations),
    )


def from_sandbox_status(status: pb.PodSandboxStatus) -> PodSandbox:
    """Return a sandbox with its addresses, the primary one first."""
    ips = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
    return PodSandbox(
        id=status.id,
        name=status.metadata.name,
        namespace=status.metadata.namespace,
        uid=status.metadata.uid,
        attempt=status.metadata.attempt,
        state=SandboxState(status.state),
        created_at=_at(status.created_at),
        runtime_handler=status.runtime_handler,
        labels=dict(status.labels),
        annotations=dict(status.annotations),
        ips=tuple(ip for ip in ips if ip),
        network=NamespaceMode(status.linux.namespaces.options.network),
    )


def from_container(item: pb.Container) -> ContainerStatus:
    """Return a container of a list: no exit details."""
    return ContainerStatus(
        id=item.id,
        name=item.metadata.name,
        sandbox_id=item.pod_sandbox_id,
        attempt=item.metadata.attempt,
        state=ContainerState(item.state),
        created_at=_at(item.created_at),
        image=item.image.user_specified_image or item.image.image,
        image_id=item.image_ref,
        labels=dict(item.labels),
        annotations=dict(item.annotations),
    )


def from_container_status(
    status: pb.ContainerStatus, *, sandbox_id: str
) -> ContainerStatus:
    """Return a container in full.

    Args:
        status: the message, which does not name the sandbox.
        sandbox_id: from the verbose info or a list.
    """
    # containerd notes the start when the call returns; a short process has ended by
    # then, and would seem to end before it began.
    finished_ns = status.finished_at and max(status.finished_at, status.started_at)
    user = None
    if status.user.HasField("linux"):
        user = ContainerUser(
            uid=status.user.linux.uid,
            gid=status.user.linux.gid,
            supplemental_groups=tuple(status.user.linux.supplemental_groups),
        )
    return ContainerStatus(
        id=status.id,
        name=status.metadata.name,
        sandbox_id=sandbox_id,
        attempt=status.metadata.attempt,
        state=ContainerState(status.state),
        created_at=_at(status.created_at),
        image=status.image.image,
        image_id=status.image_ref,
        started_at=to_datetime(status.started_at),
        finished_at=to_datetime(finished_ns),
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        log_path=status.log_path,
        labels=dict(status.labels),
        annotations=dict(status.annotations),
        user=user,
    )


def from_image(image: pb.Image) -> Image:
    """Return an image."""
    return Image(
        id=image.id,
        repo_tags=tuple(image.repo_tags),
        repo_digests=tuple(image.repo_digests),
        size_bytes=image.size,
        user=image.uid.value if image.HasField("uid") else None,
        username=image.username,
        pinned=image.pinned,
    )


def image_environment(info: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables in a verbose image status; none where it has none."""
    try:
        found: Any = orjson.loads(info.get("info", ""))["imageSpec"]["config"]["Env"]
        return tuple(str(text) for text in found or ())
    except (ValueError, KeyError, TypeError):
        return ()


def container_environment(info: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables in a verbose container status; none where it has none."""
    try:
        found: Any = orjson.loads(info.get("info", ""))["runtimeSpec"]["process"]["env"]
        return tuple(str(text) for text in found or ())
    except (ValueError, KeyError, TypeError):
        return ()


def from_stats(stats: pb.ContainerStats) -> ContainerStats:
    """Return the usage of one container; what the runtime left out is ``None``."""
    layer = stats.writable_layer

    def value(
        message: pb.CpuUsage | pb.MemoryUsage | pb.FilesystemUsage, name: str
    ) -> int | None:
        return getattr(message, name).value if message.HasField(name) else None

    return ContainerStats(
        id=stats.attributes.id,
        name=stats.attributes.metadata.name,
        pod_uid=stats.attributes.labels.get(Label.POD_UID, ""),
        at=_at(max(stats.cpu.timestamp, stats.memory.timestamp)),
        cpu_usage_core_ns=value(stats.cpu, "usage_core_nano_seconds"),
        memory_working_set_bytes=value(stats.memory, "working_set_bytes"),
        memory_usage_bytes=value(stats.memory, "usage_bytes"),
        memory_rss_bytes=value(stats.memory, "rss_bytes"),
        rootfs_used_bytes=value(layer, "used_bytes"),
        rootfs_inodes_used=value(layer, "inodes_used"),
    )


def from_filesystem(usage: pb.FilesystemUsage) -> FilesystemUsage:
    """Return the usage of an image filesystem."""
    return FilesystemUsage(
        mountpoint=usage.fs_id.mountpoint,
        used_bytes=usage.used_bytes.value,
        inodes_used=usage.inodes_used.value,
    )


def from_event(event: pb.ContainerEventResponse) -> ContainerEvent:
    """Return an event of the CRI stream."""
    return ContainerEvent(
        type=ContainerEventType(event.container_event_type),
        container_id=event.container_id,
        pod_uid=event.pod_sandbox_status.metadata.uid,
    )


def runtime_info(info: Mapping[str, str]) -> tuple[tuple[RuntimeHandler, ...], str]:
    """Return the handlers and cgroup driver of a verbose ``Status``.

    containerd before 2.0 leaves CRI's handler list empty and does not implement
    ``RuntimeConfig``; both stand in its ``config`` text. Other runtimes give none.

    Returns:
        The handlers (``""`` is the default one) and ``systemd``, ``cgroupfs`` or "".
    """
    try:
        config: Any = orjson.loads(info.get("config", ""))
        runtimes = config["containerd"]["runtimes"]
        default = runtimes[config["containerd"]["defaultRuntimeName"]]
        options = default.get("options") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return (), ""
    names = ("", *sorted(runtimes))
    driver = "systemd" if options.get("SystemdCgroup") else "cgroupfs"
    return tuple(RuntimeHandler(name) for name in names), driver


def from_status(
    response: pb.StatusResponse,
    *,
    known_handlers: Sequence[RuntimeHandler],
    cgroup_driver: str,
) -> RuntimeStatus:
    """Return the runtime's status.

    Args:
        response: the message.
        known_handlers: those of :func:`runtime_info`, used where CRI's list is empty.
        cgroup_driver: ``systemd``, ``cgroupfs``, or empty when unknown.
    """
    told = tuple(
        RuntimeHandler(
            handler.name,
            recursive_read_only_mounts=handler.features.recursive_read_only_mounts,
            user_namespaces=handler.features.user_namespaces,
        )
        for handler in response.runtime_handlers
    )
    return RuntimeStatus(
        conditions=tuple(
            RuntimeCondition(
                c.type, status=c.status, reason=c.reason, message=c.message
            )
            for c in response.status.conditions
        ),
        handlers=told or tuple(known_handlers),
        supplemental_groups_policy=response.features.supplemental_groups_policy,
        cgroup_driver=cgroup_driver,
    )
