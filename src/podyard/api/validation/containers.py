"""Rules of containers: regular, init, sidecar and ephemeral ones.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/workloads/pods/
"""

from collections.abc import Iterator, Mapping, Sequence
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
from podyard.api.syntax import (
    check_dns1123_label,
    check_port_name,
    check_port_number,
)
from podyard.api.validation.env import check_env, check_env_from
from podyard.api.validation.faults import (
    check_choice,
    check_required_text,
    check_text,
    missing,
    too_long,
)
from podyard.api.validation.probes import check_lifecycle, check_probe
from podyard.api.validation.resources import check_container_resources
from podyard.api.validation.scope import Scope
from podyard.api.validation.security import check_container_security
from podyard.api.validation.volume_mounts import (
    check_volume_devices,
    check_volume_mounts,
)
from podyard.lib.values import dataclass

PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_MESSAGE_POLICIES: Final = ("File", "FallbackToLogsOnError")
_RESTART_POLICIES: Final = ("Always", "Never", "OnFailure")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_NOT_IN_INIT: Final = "may not be set for init containers without restartPolicy=Always"
_NOT_IN_EPHEMERAL: Final = "cannot be set for an Ephemeral Container"
_FORBIDDEN_IN_EPHEMERAL: Final = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    *_PROBES,
    "lifecycle",
)
_MAX_RULES: Final = 20
_MAX_EXIT_CODES: Final = 255


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rules of a container need to know of its Pod.

    Attributes:
        scope: where the spec stands.
        kinds: the kinds of source of every volume.
        claims: the names of the Pod's resource claims.
        grace_s: the termination grace period, ``None`` where it is not set.
        os_name: ``spec.os.name``, ``None`` where it is not set.
        restart_policy: the Pod's.
        host_users: whether the Pod shares the host's user namespace.
    """

    scope: Scope
    kinds: Mapping[str, frozenset[str]]
    claims: frozenset[str]
    grace_s: int | None
    os_name: str | None
    restart_policy: str
    host_users: bool


def check_containers(
    containers: Sequence[Document], field: str, around: Surroundings
) -> Iterator[FieldError]:
    """Check the regular containers of a Pod spec."""
    if not containers:
        yield required(field)
        return
    names: set[str] = set()
    for index, container in enumerate(containers):
        where = f"{field}[{index}]"
        yield from _check_common(container, where, around)
        name = container.get("name") or ""
        if name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        yield from _check_running_parts(container, where, around)
        if around.scope.gates.enabled("ContainerRestartRules"):
            yield from _check_restart(container, where, around)
        elif container.get("restartPolicy") is not None:
            yield forbidden_field(
                f"{where}.restartPolicy", "may not be set for non-init containers"
            )
    yield from _check_host_ports(containers, field)


def check_init_containers(
    containers: Sequence[Document],
    regular: Sequence[Document],
    field: str,
    around: Surroundings,
) -> Iterator[FieldError]:
    """Check the init containers and sidecars of a Pod spec."""
    names = {container.get("name") or "" for container in regular}
    for index, container in enumerate(containers):
        where = f"{field}[{index}]"
        yield from _check_common(container, where, around)
        yield from _check_init_restart(container, where, around)
        name = container.get("name") or ""
        if name in names:
            yield duplicate(f"{where}.name", name)
        elif name:
            names.add(name)
        # They run one after the other, so only each by itself can clash.
        yield from _check_host_ports([container], field)
        if container.get("restartPolicy") == "Always":
            yield from _check_running_parts(container, where, around)
        else:
            for key in ("lifecycle", *_PROBES):
                if container.get(key) is not None:
                    yield forbidden_field(f"{where}.{key}", _NOT_IN_INIT)


def check_ephemeral_containers(
    containers: Sequence[Document],
    others: Sequence[Document],
    field: str,
    around: Surroundings,
) -> Iterator[FieldError]:
    """Check the ephemeral containers of a Pod; ``others`` are all its other ones."""
    other_names = {container.get("name") or "" for container in others}
    names = set(other_names)
    for index, container in enumerate(containers):
        where = f"{field}[{index}]"
        yield from _check_common(container, where, around)
        yield from check_image_padding(container, where)
        name = container.get("name") or ""
        if name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        target = container.get("targetContainerName") or ""
        if target and target not in other_names:
            yield missing(f"{where}.targetContainerName", target)
        for key in _FORBIDDEN_IN_EPHEMERAL:
            if container.get(key):
                yield forbidden_field(f"{where}.{key}", _NOT_IN_EPHEMERAL)
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    path = f"{where}.volumeMounts[{number}].{key}"
                    yield forbidden_field(path, _NOT_IN_EPHEMERAL)


def check_image_padding(container: Document, field: str) -> Iterator[FieldError]:
    """Refuse spaces around an image name; templates may still have them."""
    image = container.get("image") or ""
    if image != image.strip():
        yield invalid(
            f"{field}.image", image, "must not have leading or trailing whitespace"
        )


def _check_common(
    container: Document, field: str, around: Surroundings
) -> Iterator[FieldError]:
    yield from check_required_text(
        f"{field}.name", container.get("name"), check_dns1123_label
    )
    if not container.get("image"):
        yield required(f"{field}.image")
    yield from check_choice(
        f"{field}.terminationMessagePolicy",
        container.get("terminationMessagePolicy"),
        _MESSAGE_POLICIES,
    )
    yield from _check_ports(container.get("ports") or (), f"{field}.ports")
    yield from check_env(container.get("env") or (), f"{field}.env", around.scope)
    yield from check_env_from(container.get("envFrom") or (), f"{field}.envFrom")
    yield from check_volume_mounts(container, around.kinds, f"{field}.volumeMounts")
    yield from check_volume_devices(container, around.kinds, f"{field}.volumeDevices")
    yield from check_choice(
        f"{field}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES
    )
    yield from check_container_resources(
        container.get("resources") or {}, f"{field}.resources", around.claims
    )
    yield from _check_resize(
        container.get("resizePolicy") or (), f"{field}.resizePolicy", around
    )
    yield from check_container_security(
        container.get("securityContext"),
        f"{field}.securityContext",
        host_users=around.host_users,
    )


def _check_ports(ports: Sequence[Document], field: str) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{field}[{index}]"
        name = port.get("name") or ""
        faults = list(check_text(f"{where}.name", name, check_port_name))
        if name and faults:
            yield from faults
        elif name and name in names:
            yield duplicate(f"{where}.name", name)
        names.add(name)
        if not port.get("containerPort"):
            yield required(f"{where}.containerPort")
        for key in ("containerPort", "hostPort"):
            if port.get(key):
                for text in check_port_number(port[key]):
                    yield invalid(f"{where}.{key}", port[key], text)
        yield from check_choice(f"{where}.protocol", port.get("protocol"), PROTOCOLS)


def _check_host_ports(
    containers: Sequence[Document], field: str
) -> Iterator[FieldError]:
    taken: set[str] = set()
    for number, container in enumerate(containers):
        for index, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            protocol, address = port.get("protocol") or "", port.get("hostIP") or ""
            claim = f"{protocol}/{address}/{port['hostPort']}"
            if claim in taken:
                yield duplicate(f"{field}[{number}].ports[{index}].hostPort", claim)
            taken.add(claim)


def _check_running_parts(
    container: Document, field: str, around: Surroundings
) -> Iterator[FieldError]:
    if container.get("lifecycle") is not None:
        yield from check_lifecycle(
            container["lifecycle"],
            f"{field}.lifecycle",
            around.scope,
            grace_s=around.grace_s,
            os_name=around.os_name,
        )
    for name in _PROBES:
        yield from check_probe(container.get(name), f"{field}.{name}", around.scope)


# --- restarts and resizes ----------------------------------------------------------


def _check_init_restart(
    container: Document, field: str, around: Surroundings
) -> Iterator[FieldError]:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules")
    where = f"{field}.restartPolicy"
    if policy is None:
        if rules:
            yield required(
                where, "must specify restartPolicy when restart rules are used"
            )
    elif not around.scope.gates.enabled("ContainerRestartRules"):
        if policy != "Always":
            yield not_supported(where, policy, ("Always",))
    elif policy != "Always" or _restarts_all(around):
        yield from _check_restart(container, field, around)
    elif rules:
        yield forbidden_field(
            f"{field}.restartPolicyRules",
            "restartPolicyRules are not allowed for init containers with restart "
            "policy Always",
        )


def _restarts_all(around: Surroundings) -> bool:
    return around.scope.gates.enabled("RestartAllContainersOnContainerExits")


def _check_restart(
    container: Document, field: str, around: Surroundings
) -> Iterator[FieldError]:
    policy = container.get("restartPolicy")
    rules = container.get("restartPolicyRules") or ()
    where = f"{field}.restartPolicy"
    if policy is None:
        if not rules:
            return
        yield required(where, "must specify restartPolicy when restart rules are used")
    elif policy not in _RESTART_POLICIES:
        yield not_supported(where, policy, _RESTART_POLICIES)
    if len(rules) > _MAX_RULES:
        yield too_long(f"{field}.restartPolicyRules", _MAX_RULES)
    actions = ("Restart", "RestartAllContainers")
    known = actions if _restarts_all(around) else actions[:1]
    for index, rule in enumerate(rules):
        yield from _check_rule(rule, f"{field}.restartPolicyRules[{index}]", known)


def _check_rule(
    rule: Document, field: str, actions: Sequence[str]
) -> Iterator[FieldError]:
    if rule.get("action") not in actions:
        yield not_supported(f"{field}.action", rule.get("action") or "", actions)
    codes = rule.get("exitCodes")
    where = f"{field}.exitCodes"
    if codes is None:
        yield required(where, "must be specified")
        return
    if codes.get("operator") not in {"In", "NotIn"}:
        operator = codes.get("operator") or ""
        yield not_supported(f"{where}.operator", operator, ("In", "NotIn"))
    if len(codes.get("values") or ()) > _MAX_EXIT_CODES:
        yield too_long(f"{where}.values", _MAX_EXIT_CODES)


def _check_resize(
    policies: Sequence[Document], field: str, around: Surroundings
) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy")
        if name in seen:
            yield duplicate(f"{field}[{index}]", name)
        seen.add(name)
        yield from check_choice(field, name, ("cpu", "memory"))
        yield from check_choice(field, restart, ("NotRequired", "RestartContainer"))
        if around.restart_policy == "Never" and restart != "NotRequired":
            yield invalid(
                field,
                restart or "",
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            )
