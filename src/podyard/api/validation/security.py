"""Rules of security contexts, sysctls and host namespaces.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.pod_templates import all_containers
from podyard.api.syntax import check_dns1123_subdomain, check_user_id
from podyard.api.validation.faults import check_text, too_long
from podyard.api.validation.paths import check_descending
from podyard.api.validation.scope import Scope

_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_MAX_APPARMOR_NAME: Final = 4095
_SYSCTL_SEGMENT: Final = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_NAME: Final = rf"({_SYSCTL_SEGMENT}[\./])*{_SYSCTL_SEGMENT}"
_SYSCTL_NAME_RE = re.compile(_SYSCTL_NAME)
_MAX_SYSCTL_NAME: Final = 253
#: No kernel parameter of a namespace needs more; a ``+`` or a newline would smuggle
#: further parameters into what the runtime sets.
_SYSCTL_VALUE_RE = re.compile(r"[A-Za-z0-9_.,:/ \t-]*")
_IPC_SYSCTLS: Final = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_NET_SYSCTLS: Final = ("net.",)
_WINDOWS: Final = "cannot be set for a windows pod"
_WINDOWS_POD_FIELDS: Final = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
)
_WINDOWS_CONTAINER_FIELDS: Final = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)
_MAX_GMSA_BYTES: Final = 64 * 1024


def shares_host_users(spec: Document) -> bool:
    """Say whether the Pod uses the host's user namespace, as is the default."""
    return spec.get("hostUsers") is not False


def check_container_security(
    context: Document | None, field: str, *, host_users: bool
) -> Iterator[FieldError]:
    """Check the security context of a container."""
    if context is None:
        return
    yield from _check_ids(context, field, ("runAsUser", "runAsGroup"))
    proc_mount = context.get("procMount")
    if proc_mount is not None:
        if proc_mount not in {"Default", "Unmasked"}:
            yield not_supported(
                f"{field}.procMount", proc_mount, ("Default", "Unmasked")
            )
        if host_users and proc_mount == "Unmasked":
            yield invalid(
                f"{field}.procMount",
                proc_mount,
                "`hostUsers` must be false to use `Unmasked`",
            )
    yield from _check_seccomp(context.get("seccompProfile"), f"{field}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        yield from _check_no_escalation(context, field)
    yield from _check_windows_options(
        context.get("windowsOptions"), f"{field}.windowsOptions"
    )
    yield from _check_apparmor(
        context.get("appArmorProfile"), f"{field}.appArmorProfile"
    )


def _check_no_escalation(context: Document, field: str) -> Iterator[FieldError]:
    cannot = "cannot set `allowPrivilegeEscalation` to false and"
    if context.get("privileged"):
        yield invalid(field, context, f"{cannot} `privileged` to true")
    added = (context.get("capabilities") or {}).get("add") or ()
    if "CAP_SYS_ADMIN" in added:
        yield invalid(field, context, f"{cannot} `capabilities.Add` CAP_SYS_ADMIN")


def _check_ids(
    context: Document, field: str, names: Sequence[str]
) -> Iterator[FieldError]:
    for name in names:
        value = context.get(name)
        if value is not None:
            for text in check_user_id(value):
                yield invalid(f"{field}.{name}", value, text)


def _check_seccomp(profile: Document | None, field: str) -> Iterator[FieldError]:
    if profile is None:
        return
    type_, local = profile.get("type") or "", profile.get("localhostProfile")
    if not type_:
        yield required(f"{field}.type", "type is required when seccompProfile is set")
    elif type_ not in _PROFILES:
        yield not_supported(f"{field}.type", type_, _PROFILES)
    where = f"{field}.localhostProfile"
    if type_ != "Localhost":
        if local is not None:
            yield invalid(
                where, profile, "can only be set when seccomp type is Localhost"
            )
    elif local is None:
        yield required(where, "must be set when seccomp type is Localhost")
    else:
        yield from check_descending(where, local)


def _check_apparmor(profile: Document | None, field: str) -> Iterator[FieldError]:
    if profile is None:
        return
    type_, local = profile.get("type") or "", profile.get("localhostProfile")
    where = f"{field}.localhostProfile"
    if not type_:
        yield required(f"{field}.type", "type is required when appArmorProfile is set")
    elif type_ not in _PROFILES:
        yield not_supported(f"{field}.type", type_, _PROFILES)
    elif type_ != "Localhost":
        if local is not None:
            yield invalid(
                where, local, "can only be set when AppArmor type is Localhost"
            )
    elif not local:
        yield required(where, "must be set when AppArmor type is Localhost")
    else:
        if local.strip() != local:
            yield invalid(where, local, "must not be padded with whitespace")
        if len(local) > _MAX_APPARMOR_NAME:
            yield too_long(where, _MAX_APPARMOR_NAME)


def _check_windows_options(
    options: Document | None, field: str
) -> Iterator[FieldError]:
    if options is None:
        return
    name = options.get("gmsaCredentialSpecName")
    if name is not None:
        where = f"{field}.gmsaCredentialSpecName"
        yield from check_text(where, name, check_dns1123_subdomain)
    content = options.get("gmsaCredentialSpec")
    where = f"{field}.gmsaCredentialSpec"
    if content == "":
        yield invalid(where, content, "gmsaCredentialSpec cannot be an empty string")
    elif content is not None and len(content) > _MAX_GMSA_BYTES:
        yield invalid(where, content, "gmsaCredentialSpec size must be under 64 KiB")
    if options.get("runAsUserName") == "":
        yield invalid(
            f"{field}.runAsUserName", "", "runAsUserName cannot be an empty string"
        )


# --- the Pod's own security context ----------------------------------------------


def check_pod_security(spec: Document, field: str) -> Iterator[FieldError]:
    """Check the security context of a Pod spec; ``field`` is the spec's path."""
    context = spec.get("securityContext") or {}
    where = f"{field}.securityContext"
    yield from _check_ids(context, where, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        for text in check_user_id(group):
            yield invalid(f"{where}.supplementalGroups[{index}]", group, text)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        yield invalid(
            f"{where}.shareProcessNamespace",
            True,  # noqa: FBT003
            "ShareProcessNamespace and HostPID cannot both be enabled",
        )
    yield from _check_sysctls(spec, context.get("sysctls") or (), f"{where}.sysctls")
    yield from _check_policy(
        context, where, "fsGroupChangePolicy", ("Always", "OnRootMismatch")
    )
    yield from _check_seccomp(context.get("seccompProfile"), f"{where}.seccompProfile")
    yield from _check_windows_options(
        context.get("windowsOptions"), f"{where}.windowsOptions"
    )
    yield from _check_apparmor(
        context.get("appArmorProfile"), f"{where}.appArmorProfile"
    )
    yield from _check_policy(
        context, where, "supplementalGroupsPolicy", ("Merge", "Strict")
    )
    yield from _check_policy(
        context, where, "seLinuxChangePolicy", ("MountOption", "Recursive")
    )


def _check_policy(
    context: Document, field: str, name: str, choices: Sequence[str]
) -> Iterator[FieldError]:
    value = context.get(name)
    if value is not None and value not in choices:
        yield not_supported(f"{field}.{name}", value, choices)


def _check_sysctls(
    spec: Document, sysctls: Sequence[Document], field: str
) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        where = f"{field}[{index}].name"
        name, value = sysctl.get("name") or "", str(sysctl.get("value") or "")
        if not name:
            yield required(where)
        elif len(name) > _MAX_SYSCTL_NAME or not _SYSCTL_NAME_RE.fullmatch(name):
            yield invalid(
                where,
                name,
                f"must have at most {_MAX_SYSCTL_NAME} characters and match regex "
                f"^{_SYSCTL_NAME}$",
            )
        elif name in seen:
            yield duplicate(where, name)
        seen.add(name)
        yield from _check_sysctl_namespace(spec, name, where)
        if not _SYSCTL_VALUE_RE.fullmatch(value):
            yield invalid(
                f"{field}[{index}].value",
                value,
                "must consist of alphanumeric characters, spaces, '_', '.', ',', ':', "
                "'/' or '-'",
            )


def _check_sysctl_namespace(
    spec: Document, name: str, field: str
) -> Iterator[FieldError]:
    dotted = dotted_sysctl(name)
    if spec.get("hostNetwork") and dotted.startswith(_NET_SYSCTLS):
        yield invalid(field, name, "may not be specified when 'hostNetwork' is true")
    if spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
        yield invalid(field, name, "may not be specified when 'hostIPC' is true")


def dotted_sysctl(name: str) -> str:
    """Return a sysctl's name with dots between its parts.

    Where a slash comes first, slashes separate and dots belong to a part, which is
    kept apart by swapping the two: ``net/ipv4/conf/eth0.1``, ``net.ipv4.conf.eth0/1``.
    """
    first = re.search(r"[./]", name)
    if first is None or first[0] == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def check_host_users(spec: Document, field: str, scope: Scope) -> Iterator[FieldError]:
    """Check what may not be shared with the host beside a user namespace."""
    if shares_host_users(spec):
        return
    forbidden = "when `hostUsers` is false"
    if spec.get("hostNetwork") and not scope.gates.enabled(
        "UserNamespacesHostNetworkSupport"
    ):
        yield forbidden_field(f"{field}.hostNetwork", forbidden)
    if spec.get("hostPID"):
        yield forbidden_field(f"{field}.HostPID", forbidden)
    if spec.get("hostIPC"):
        yield forbidden_field(f"{field}.HostIPC", forbidden)
    for path, container in all_containers(spec):
        if container.get("volumeDevices"):
            yield forbidden_field(f"{field}.{path}.volumeDevices", forbidden)


# --- operating systems -------------------------------------------------------------


def check_os(spec: Document, field: str) -> Iterator[FieldError]:
    """Check ``os``, and the fields that the named system does not have."""
    if spec.get("os") is None:
        return
    name = spec["os"].get("name") or ""
    if not name:
        yield required(f"{field}.os.name")
    elif name == "linux":
        yield from _check_linux(spec, field)
    elif name == "windows":
        yield from _check_windows(spec, field)
    else:
        yield not_supported(f"{field}.os", name, ("linux", "windows"))


def _check_linux(spec: Document, field: str) -> Iterator[FieldError]:
    text = "windows options cannot be set for a linux pod"
    if (spec.get("securityContext") or {}).get("windowsOptions") is not None:
        yield forbidden_field(f"{field}.securityContext.windowsOptions", text)
    for path, container in all_containers(spec):
        if (container.get("securityContext") or {}).get("windowsOptions") is not None:
            yield forbidden_field(
                f"{field}.{path}.securityContext.windowsOptions", text
            )


def _check_windows(spec: Document, field: str) -> Iterator[FieldError]:
    context = spec.get("securityContext") or {}
    for name in _WINDOWS_POD_FIELDS:
        if context.get(name) is not None:
            yield forbidden_field(f"{field}.securityContext.{name}", _WINDOWS)
    if spec.get("hostUsers") is not None:
        yield forbidden_field(f"{field}.hostUsers", _WINDOWS)
    for name in ("hostPID", "hostIPC"):
        if spec.get(name):
            yield forbidden_field(f"{field}.{name}", _WINDOWS)
    if spec.get("shareProcessNamespace") is not None:
        yield forbidden_field(f"{field}.shareProcessNamespace", _WINDOWS)
    for path, container in all_containers(spec):
        own = container.get("securityContext") or {}
        for name in _WINDOWS_CONTAINER_FIELDS:
            if own.get(name) is not None:
                yield forbidden_field(
                    f"{field}.{path}.securityContext.{name}", _WINDOWS
                )


def check_host_process(spec: Document, field: str) -> Iterator[FieldError]:
    """Check Windows HostProcess containers, which come all or not at all."""
    wanted = _host_process(spec)
    of_containers = {
        path: _host_process(container) for path, container in all_containers(spec)
    }
    for path, own in of_containers.items():
        if wanted is not None and own is not None and own != wanted:
            yield invalid(
                f"{field}.{path}.securityContext.windowsOptions.hostProcess",
                own,
                "pod hostProcess value must be identical if both are specified, was "
                f"{'true' if wanted else 'false'}",
            )
    effective = [wanted if own is None else own for own in of_containers.values()]
    if not any(effective):
        return
    if not all(effective):
        yield invalid(
            field,
            "",
            "If pod contains any hostProcess containers then all containers must be "
            "HostProcess containers",
        )
    if not spec.get("hostNetwork"):
        yield invalid(
            f"{field}.hostNetwork",
            False,  # noqa: FBT003
            "hostNetwork must be true if pod contains any hostProcess containers",
        )


def _host_process(holder: Document) -> bool | None:
    options = (holder.get("securityContext") or {}).get("windowsOptions") or {}
    value: bool | None = options.get("hostProcess")
    return value


# --- annotations that came before the fields ----------------------------------------

_SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
_APPARMOR_CONTAINER: Final = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_DEFAULTS: Final = ("runtime/default", "docker/default")


def check_profile_annotations(
    annotations: dict[str, str], spec: Document, field: str
) -> Iterator[FieldError]:
    """Check the old seccomp and AppArmor annotations; ``field`` is their path."""
    for key, profile in annotations.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP_CONTAINER):
            yield from _check_seccomp_name(profile, f"{field}.{key}")
    names = {container.get("name") for _, container in all_containers(spec)}
    for key, profile in annotations.items():
        if not key.startswith(_APPARMOR_CONTAINER):
            continue
        container = key.removeprefix(_APPARMOR_CONTAINER)
        if container not in names:
            yield invalid(f"{field}[{key}]", container, "container not found")
        if profile not in {"", "runtime/default", "unconfined"} and not (
            profile.startswith("localhost/")
        ):
            yield invalid(
                f"{field}[{key}]",
                profile,
                f'invalid AppArmor profile name: "{profile}"',
            )


def _check_seccomp_name(profile: str, field: str) -> Iterator[FieldError]:
    if profile.startswith("localhost/"):
        yield from check_descending(field, profile.removeprefix("localhost/"))
    elif profile not in {*_SECCOMP_DEFAULTS, "unconfined"}:
        yield invalid(field, profile, "must be a valid seccomp profile")


def check_profiles_agree(
    annotations: dict[str, str], spec: Document, field: str
) -> Iterator[FieldError]:
    """Check that the old annotations and the fields say the same."""
    pod_context = spec.get("securityContext") or {}
    yield from _check_agreement(
        annotations.get(_SECCOMP_POD),
        pod_context.get("seccompProfile"),
        f"{field}.securityContext.seccompProfile",
        "seccomp",
    )
    for path, container in all_containers(spec):
        own = container.get("securityContext") or {}
        where, name = f"{field}.{path}.securityContext", container.get("name")
        yield from _check_agreement(
            annotations.get(f"{_SECCOMP_CONTAINER}{name}"),
            own.get("seccompProfile"),
            f"{where}.seccompProfile",
            "seccomp",
        )
        yield from _check_agreement(
            annotations.get(f"{_APPARMOR_CONTAINER}{name}"),
            own.get("appArmorProfile") or pod_context.get("appArmorProfile"),
            f"{where}.appArmorProfile",
            "apparmor",
        )


def _check_agreement(
    annotation: str | None, profile: Document | None, field: str, what: str
) -> Iterator[FieldError]:
    if annotation is None or profile is None:
        return
    type_ = profile.get("type")
    differs = f"{what} type in annotation and field must match"
    if type_ == "Localhost":
        local = annotation.removeprefix("localhost/")
        if local == annotation:
            yield forbidden_field(f"{field}.type", differs)
        elif local != profile.get("localhostProfile"):
            yield forbidden_field(
                f"{field}.localhostProfile",
                f"{what} profile in annotation and field must match",
            )
    elif type_ in {"Unconfined", "RuntimeDefault"}:
        agreed = ("unconfined",) if type_ == "Unconfined" else _SECCOMP_DEFAULTS
        if annotation not in agreed:
            yield forbidden_field(f"{field}.type", differs)
