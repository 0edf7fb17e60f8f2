"""Pod to sandbox config, container to container config: what CRI is told.

Source: ``pkg/kubelet/kuberuntime`` and ``pkg/securitycontext`` (v1.36), the CRI v1
API, and Kubernetes docs "Configure a Security Context".
"""

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Final

import orjson

from podyard.api.core_v1 import Container, Handler, Pod
from podyard.api.documents import Document
from podyard.api.expansion import expand
from podyard.api.observed import Image
from podyard.api.restart import container_hash
from podyard.api.runtime import (
    Annotation,
    Capabilities,
    ContainerConfig,
    ContainerSecurity,
    DNSConfig,
    EnvVar,
    Label,
    LinuxResources,
    Mount,
    NamespaceMode,
    NamespaceOptions,
    PortMapping,
    ProfileType,
    SandboxConfig,
    SandboxSecurity,
    SecurityProfile,
    SELinuxOptions,
    SupplementalGroupsPolicy,
    UserNamespace,
)
from podyard.lib.values import dataclass
from podyard.node.environment.build import to_mapping

#: Annotation of a static Pod: where it comes from; ``api`` for all others.
CONFIG_SOURCE: Final = "kubernetes.io/config.source"

MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


class ContainerConfigError(Exception):
    """The container's config cannot be made: CreateContainerConfigError.

    Attributes:
        message: the waiting message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What of the node goes into configs.

    Attributes:
        seccomp_dir: where ``Localhost`` seccomp profiles are looked for, absolute.
        seccomp_default: containers without a profile get the runtime's own.
        stop_signals: the gate of ``lifecycle.stopSignal``.
        extra_masked_paths: paths of this machine masked beside the usual ones.
    """

    seccomp_dir: str
    seccomp_default: bool = False
    stop_signals: bool = False
    extra_masked_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What a sandbox config is made of beside the Pod.

    Attributes:
        attempt: how many sandboxes the Pod had before.
        hostname: as the kernel is told; empty on the host's network.
        dns: what the resolver is told.
        log_directory: absolute.
        cgroup_parent: in the driver's own notation.
    """

    attempt: int
    hostname: str
    dns: DNSConfig
    log_directory: str
    cgroup_parent: str
    userns: UserNamespace | None = None
    resources: LinuxResources | None = None
    overhead: LinuxResources | None = None


def pod_labels(pod: Pod) -> dict[str, str]:
    """Return the labels by which the runtime's objects are found again."""
    return {
        Label.POD_NAME: pod.name,
        Label.POD_NAMESPACE: pod.namespace,
        Label.POD_UID: pod.uid,
    }


def build_sandbox_config(pod: Pod, parts: SandboxParts) -> SandboxConfig:
    """Return the sandbox config of a Pod."""
    return SandboxConfig(
        name=pod.name,
        namespace=pod.namespace,
        uid=pod.uid,
        attempt=parts.attempt,
        hostname="" if pod.spec.host_network else parts.hostname,
        log_directory=parts.log_directory,
        dns=parts.dns,
        port_mappings=_port_mappings(pod.spec.containers),
        labels={**pod.metadata.labels, **pod_labels(pod)},
        annotations={CONFIG_SOURCE: "api", **pod.metadata.annotations},
        cgroup_parent=parts.cgroup_parent,
        sysctls=_sysctls(pod.spec.security_context),
        security=_sandbox_security(pod, parts.userns),
        overhead=parts.overhead,
        resources=parts.resources,
    )


def _port_mappings(containers: Iterable[Container]) -> tuple[PortMapping, ...]:
    mappings: dict[tuple[str, str, int], PortMapping] = {}
    for container in containers:
        for port in container.ports:
            if port.host_port:
                key = (port.protocol, port.host_ip, port.host_port)
                mappings.setdefault(
                    key,
                    PortMapping(
                        port.protocol, port.container_port, port.host_port, port.host_ip
                    ),
                )
    return tuple(mappings.values())


def _sysctls(security_context: Document) -> dict[str, str]:
    return {
        normalize_sysctl(s.get("name", "")): str(s.get("value", ""))
        for s in security_context.get("sysctls") or ()
    }


def normalize_sysctl(name: str) -> str:
    """Return a sysctl's name with dots, whichever separator it was written with.

    Where the first separator is a slash, slashes separate and dots belong to names
    (``net/ipv4/conf/eno2.100/rp_filter``).
    """
    first = next((char for char in name if char in "./"), ".")
    if first == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def namespaces_of(pod: Pod, userns: UserNamespace | None = None) -> NamespaceOptions:
    """Return the namespaces of a Pod's sandbox and of its containers."""
    spec = pod.spec
    pid = NamespaceMode.CONTAINER
    if spec.host_pid:
        pid = NamespaceMode.NODE
    elif spec.share_process_namespace:
        pid = NamespaceMode.POD
    return NamespaceOptions(
        network=NamespaceMode.NODE if spec.host_network else NamespaceMode.POD,
        pid=pid,
        ipc=NamespaceMode.NODE if spec.host_ipc else NamespaceMode.POD,
        userns=userns,
    )


def _sandbox_security(pod: Pod, userns: UserNamespace | None) -> SandboxSecurity:
    context = pod.spec.security_context
    privileged = any(
        (c.security_context or {}).get("privileged") for c in pod.all_containers()
    )
    return SandboxSecurity(
        namespaces=namespaces_of(pod, userns),
        privileged=privileged,
        run_as_user=context.get("runAsUser"),
        run_as_group=context.get("runAsGroup"),
        supplemental_groups=_supplemental_groups(context),
        supplemental_groups_policy=_groups_policy(context),
        seccomp=SecurityProfile(ProfileType.RUNTIME_DEFAULT),
        apparmor=_apparmor(context.get("appArmorProfile")),
        selinux=_selinux(context.get("seLinuxOptions")),
    )


def _supplemental_groups(context: Document) -> tuple[int, ...]:
    groups: list[int] = []
    if context.get("fsGroup") is not None:
        groups.append(int(context["fsGroup"]))
    groups.extend(int(group) for group in context.get("supplementalGroups") or ())
    return tuple(dict.fromkeys(groups))


def _groups_policy(context: Document) -> SupplementalGroupsPolicy:
    if context.get("supplementalGroupsPolicy") == "Strict":
        return SupplementalGroupsPolicy.STRICT
    return SupplementalGroupsPolicy.MERGE


def _selinux(options: Document | None) -> SELinuxOptions | None:
    if not options:
        return None
    return SELinuxOptions(
        options.get("user", ""),
        options.get("role", ""),
        options.get("type", ""),
        options.get("level", ""),
    )


def _apparmor(profile: Document | None) -> SecurityProfile | None:
    match (profile or {}).get("type"):
        case "RuntimeDefault":
            return SecurityProfile(ProfileType.RUNTIME_DEFAULT)
        case "Unconfined":
            return SecurityProfile(ProfileType.UNCONFINED)
        case "Localhost":
            name = str((profile or {}).get("localhostProfile") or "")
            return SecurityProfile(ProfileType.LOCALHOST, name)
        case _:
            return None


def _seccomp(profile: Document | None, settings: BuildSettings) -> SecurityProfile:
    match (profile or {}).get("type"):
        case "RuntimeDefault":
            return SecurityProfile(ProfileType.RUNTIME_DEFAULT)
        case "Localhost":
            name = str((profile or {}).get("localhostProfile") or "")
            if not name:
                raise ContainerConfigError(
                    "localhostProfile must be set if seccompProfile type is Localhost."
                )
            path = f"{settings.seccomp_dir.rstrip('/')}/{name.lstrip('/')}"
            return SecurityProfile(ProfileType.LOCALHOST, path)
        case "Unconfined":
            return SecurityProfile(ProfileType.UNCONFINED)
        case _:
            if settings.seccomp_default:
                return SecurityProfile(ProfileType.RUNTIME_DEFAULT)
            return SecurityProfile(ProfileType.UNCONFINED)


# --- containers ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContainerParts:
    """What a container config is made of beside its spec.

    Attributes:
        attempt: the restart count.
        image_ref: what the runtime is given.
        image: the image, for its user.
        target_id: the container whose processes an ephemeral one looks at.
    """

    attempt: int
    image_ref: str
    image: Image
    env: tuple[EnvVar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    resources: LinuxResources = field(default_factory=LinuxResources)
    userns: UserNamespace | None = None
    target_id: str = ""


def build_container_config(
    pod: Pod, container: Container, parts: ContainerParts, settings: BuildSettings
) -> ContainerConfig:
    """Return the config of one container.

    Raises:
        ContainerConfigError: the spec asks for what cannot be.
    """
    # Services bring thousands of variables, and few commands ask for one.
    asked = any("$" in word for word in (*container.command, *container.args))
    known = to_mapping(parts.env) if asked else {}
    return ContainerConfig(
        name=container.name,
        attempt=parts.attempt,
        image=parts.image_ref,
        user_specified_image=container.image,
        command=tuple(expand(word, known) for word in container.command),
        args=tuple(expand(word, known) for word in container.args),
        working_dir=container.working_dir,
        envs=parts.env,
        mounts=parts.mounts,
        labels={**pod_labels(pod), Label.CONTAINER_NAME: container.name},
        annotations=build_container_annotations(pod, container, parts.attempt),
        log_path=log_path(container.name, parts.attempt),
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        resources=parts.resources,
        security=_container_security(pod, container, parts, settings),
        stop_signal=_stop_signal(container, settings),
    )


def log_path(container: str, attempt: int) -> str:
    """Return a container's log file, relative to its sandbox's log directory."""
    return f"{container}/{attempt}.log"


def _stop_signal(container: Container, settings: BuildSettings) -> str:
    if not settings.stop_signals or container.lifecycle is None:
        return ""
    return container.lifecycle.stop_signal


def build_container_annotations(
    pod: Pod, container: Container, attempt: int
) -> dict[str, str]:
    """Return what has to be known of a container once its Pod is forgotten."""
    annotations: dict[str, str] = {
        Annotation.HASH: container_hash(container),
        Annotation.RESTART_COUNT: str(attempt),
        Annotation.TERMINATION_MESSAGE_PATH: container.termination_message_path,
        Annotation.TERMINATION_MESSAGE_POLICY: container.termination_message_policy,
    }
    grace = pod.spec.termination_grace_period_s
    if grace is not None:
        annotations[Annotation.POD_TERMINATION_GRACE_PERIOD] = str(grace)
    if pod.metadata.deletion_grace_period_s is not None:
        annotations[Annotation.POD_DELETION_GRACE_PERIOD] = str(
            pod.metadata.deletion_grace_period_s
        )
    pre_stop = (container.document.get("lifecycle") or {}).get("preStop")
    if pre_stop is not None:
        annotations[Annotation.PRE_STOP_HANDLER] = _json(pre_stop)
    if container.ports:
        annotations[Annotation.PORTS] = _json(container.document.get("ports"))
    return annotations


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _effective(pod: Pod, container: Container, field_name: str) -> Any:
    own = (container.security_context or {}).get(field_name)
    return pod.spec.security_context.get(field_name) if own is None else own


def _container_security(
    pod: Pod, container: Container, parts: ContainerParts, settings: BuildSettings
) -> ContainerSecurity:
    context = container.security_context or {}
    user, username = _user_of(pod, container, parts.image)
    verify_non_root(pod, container, parts.image)
    capabilities = context.get("capabilities") or {}
    masked, readonly = _paths(context.get("procMount"), settings)
    return ContainerSecurity(
        namespaces=_container_namespaces(pod, container, parts),
        privileged=bool(context.get("privileged")),
        readonly_rootfs=bool(context.get("readOnlyRootFilesystem")),
        no_new_privs=context.get("allowPrivilegeEscalation") is False,
        run_as_user=user,
        run_as_group=_effective(pod, container, "runAsGroup"),
        run_as_username=username,
        supplemental_groups=_supplemental_groups(pod.spec.security_context),
        supplemental_groups_policy=_groups_policy(pod.spec.security_context),
        capabilities=Capabilities(
            tuple(capabilities.get("add") or ()), tuple(capabilities.get("drop") or ())
        ),
        seccomp=_seccomp(_effective(pod, container, "seccompProfile"), settings),
        apparmor=_apparmor(_effective(pod, container, "appArmorProfile")),
        selinux=_selinux(_effective(pod, container, "seLinuxOptions")),
        masked_paths=masked,
        readonly_paths=readonly,
    )


def _container_namespaces(
    pod: Pod, container: Container, parts: ContainerParts
) -> NamespaceOptions:
    options = namespaces_of(pod, parts.userns)
    if not container.target_container or options.pid is not NamespaceMode.CONTAINER:
        return options
    if not parts.target_id:
        raise ContainerConfigError(
            f'unable to find target container "{container.target_container}"'
        )
    return NamespaceOptions(
        network=options.network,
        pid=NamespaceMode.TARGET,
        ipc=options.ipc,
        target_id=parts.target_id,
        userns=options.userns,
    )


def _paths(
    proc_mount: object, settings: BuildSettings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if proc_mount == "Unmasked":
        return (), ()
    return MASKED_PATHS + settings.extra_masked_paths, READONLY_PATHS


def _user_of(pod: Pod, container: Container, image: Image) -> tuple[int | None, str]:
    wanted = _effective(pod, container, "runAsUser")
    if wanted is not None:
        return int(wanted), ""
    if image.user is not None:
        return image.user, ""
    if image.username:
        return None, image.username
    return 0, ""


def verify_non_root(pod: Pod, container: Container, image: Image) -> None:
    """Refuse a container that must not be root but would, or might, be.

    Raises:
        ContainerConfigError: with upstream's three texts.
    """
    if not _effective(pod, container, "runAsNonRoot"):
        return
    where = f'(pod: "{pod.full_name}", container: {container.name})'
    wanted = _effective(pod, container, "runAsUser")
    if wanted is not None:
        if int(wanted) == 0:
            raise ContainerConfigError(
                f"container's runAsUser breaks non-root policy {where}"
            )
        return
    user, username = _user_of(pod, container, image)
    if username:
        raise ContainerConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({username}), "
            f"cannot verify user is non-root {where}"
        )
    if user == 0:
        raise ContainerConfigError(
            f"container has runAsNonRoot and image will run as root {where}"
        )


def hook_of(container: Container, which: str) -> Handler | None:
    """Return a container's ``post_start`` or ``pre_stop`` hook, or ``None``."""
    if container.lifecycle is None:
        return None
    if which == "post_start":
        return container.lifecycle.post_start
    return container.lifecycle.pre_stop


def stop_grace_s(pod: Pod, container: Container | None, *, probe: str = "") -> int:
    """Return the grace period of a container's stop, in seconds.

    The Pod's deletion counts before a probe's own, and that before the Pod's.

    Args:
        pod: the Pod.
        container: the container, where a probe ends it.
        probe: ``liveness`` or ``startup``, or empty.
    """
    if pod.metadata.deletion_grace_period_s is not None:
        return pod.metadata.deletion_grace_period_s
    found = None
    if container is not None and probe == "liveness":
        found = container.liveness_probe
    elif container is not None and probe == "startup":
        found = container.startup_probe
    if found is not None and found.termination_grace_period_s is not None:
        return found.termination_grace_period_s
    if pod.spec.termination_grace_period_s is not None:
        return pod.spec.termination_grace_period_s
    return 2


def container_log_link(pod: Pod, container: str, container_id: str) -> str:
    """Return the file name of the link in ``/var/log/containers``, 255 at most."""
    tail = f"-{container_id}.log"
    head = f"{pod.name}_{pod.namespace}_{container}"
    return head[: 255 - len(tail)] + tail
