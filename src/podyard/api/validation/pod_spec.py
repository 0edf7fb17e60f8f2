"""Rules of a Pod spec, in Pods and in Pod templates.

Source: ``pkg/apis/core/validation`` (v1.36).
"""

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
from podyard.api.syntax import (
    MAX_INT32,
    check_dns1123_label,
    check_dns1123_subdomain,
    check_dns1123_subdomain_underscore,
    check_ip,
    check_qualified_name,
    in_range,
)
from podyard.api.validation.containers import (
    Surroundings,
    check_containers,
    check_ephemeral_containers,
    check_init_containers,
)
from podyard.api.validation.faults import (
    check_choice,
    check_text,
    missing,
    too_long,
)
from podyard.api.validation.object_meta import check_labels
from podyard.api.validation.resources import (
    check_container_resources,
    check_pod_resources,
)
from podyard.api.validation.scheduling import (
    check_affinity,
    check_tolerations,
    check_topology_spread,
)
from podyard.api.validation.scope import Scope
from podyard.api.validation.security import (
    check_host_process,
    check_host_users,
    check_os,
    check_pod_security,
    shares_host_users,
)
from podyard.api.validation.volumes import check_volumes, volume_sources

_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_DNS_POLICIES: Final = (
    "ClusterFirstWithHostNet",
    "ClusterFirst",
    "Default",
    "None",
)
_PREEMPTION_POLICIES: Final = ("PreemptLowerPriority", "Never")
MAX_NAMESERVERS: Final = 3
MAX_SEARCHES: Final = 32
MAX_SEARCH_CHARS: Final = 2048
_MAX_HOSTNAME_OVERRIDE: Final = 64


def check_pod_spec(spec: Document, field: str, scope: Scope) -> Iterator[FieldError]:
    """Check a Pod spec with its defaults filled in.

    Args:
        spec: the spec.
        field: its path.
        scope: where it stands.
    """
    if spec.get("terminationGracePeriodSeconds") is None:
        yield required(f"{field}.terminationGracePeriodSeconds")
    volumes = spec.get("volumes") or ()
    yield from check_volumes(volumes, f"{field}.volumes", scope)
    claims = spec.get("resourceClaims") or ()
    yield from _check_claims(claims, f"{field}.resourceClaims", scope)
    yield from _check_all_containers(spec, field, scope)
    if scope.gates.enabled("PodLevelResources"):
        yield from check_pod_resources(spec, field)
    yield from _check_host_network(spec, field, scope)
    yield from check_choice(
        f"{field}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES
    )
    yield from check_choice(f"{field}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    yield from check_labels(spec.get("nodeSelector"), f"{field}.nodeSelector")
    yield from check_pod_security(spec, field)
    yield from check_affinity(spec.get("affinity"), f"{field}.affinity")
    yield from _check_dns(spec, f"{field}.dnsConfig")
    yield from _check_gates(spec, field)
    yield from check_topology_spread(
        spec.get("topologySpreadConstraints") or (),
        f"{field}.topologySpreadConstraints",
    )
    yield from check_host_process(spec, field)
    yield from check_host_users(spec, field, scope)
    yield from _check_hostname(spec, field, scope)
    yield from _check_names(spec, field)
    yield from check_tolerations(
        spec.get("tolerations") or (), f"{field}.tolerations", scope
    )
    yield from _check_host_aliases(spec, f"{field}.hostAliases")
    yield from _check_classes(spec, field)
    yield from check_os(spec, field)
    yield from _check_file_keys(spec, field)


def _check_all_containers(
    spec: Document, field: str, scope: Scope
) -> Iterator[FieldError]:
    around = Surroundings(
        scope=scope,
        kinds=volume_sources(spec.get("volumes") or ()),
        claims=frozenset(
            claim["name"]
            for claim in spec.get("resourceClaims") or ()
            if claim.get("name")
        ),
        grace_s=spec.get("terminationGracePeriodSeconds"),
        os_name=(spec.get("os") or {}).get("name"),
        restart_policy=spec.get("restartPolicy") or "",
        host_users=shares_host_users(spec),
    )
    regular, init = spec.get("containers") or [], spec.get("initContainers") or []
    yield from check_containers(regular, f"{field}.containers", around)
    yield from check_init_containers(init, regular, f"{field}.initContainers", around)
    yield from check_ephemeral_containers(
        spec.get("ephemeralContainers") or (),
        [*regular, *init],
        f"{field}.ephemeralContainers",
        around,
    )


def _check_claims(
    claims: Sequence[Document], field: str, scope: Scope
) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        if scope.is_mirror:
            yield forbidden_field("", "static pods do not support resource claims")
            continue
        where = f"{field}[{index}]"
        name = claim.get("name") or ""
        if not name:
            yield required(f"{where}.name")
        elif name in seen:
            yield duplicate(f"{where}.name", name)
        else:
            yield from check_text(f"{where}.name", name, check_dns1123_label)
        seen.add(name)
        keys = ("resourceClaimName", "resourceClaimTemplateName")
        present = [key for key in keys if claim.get(key) is not None]
        if len(present) > 1:
            yield invalid(
                where,
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may "
                "be specified",
            )
        if not present:
            yield invalid(
                where,
                claim,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )
        for key in present:
            yield from check_text(f"{where}.{key}", claim[key], check_dns1123_subdomain)


def _check_host_network(
    spec: Document, field: str, scope: Scope
) -> Iterator[FieldError]:
    if not spec.get("hostNetwork"):
        return
    for number, container in enumerate(spec.get("containers") or ()):
        for index, port in enumerate(container.get("ports") or ()):
            host, own = port.get("hostPort") or 0, port.get("containerPort") or 0
            if (scope.is_pod or host) and host != own:
                yield invalid(
                    f"{field}.containers[{number}].ports[{index}].hostPort",
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                )


def _check_dns(spec: Document, field: str) -> Iterator[FieldError]:
    config = spec.get("dnsConfig")
    servers = (config or {}).get("nameservers") or []
    if spec.get("dnsPolicy") == "None":
        if config is None:
            yield required(field, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not servers:
            yield required(
                f"{field}.nameservers",
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            )
            return
    if config is None:
        return
    if len(servers) > MAX_NAMESERVERS:
        yield invalid(
            f"{field}.nameservers",
            servers,
            f"must not have more than {MAX_NAMESERVERS} nameservers",
        )
    for index, server in enumerate(servers):
        yield from check_text(f"{field}.nameservers[{index}]", server, check_ip)
    yield from _check_searches(config.get("searches") or [], f"{field}.searches")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{field}.options[{index}]", "must not be empty")
        # Options stand in one line of resolv.conf, with blanks between them.
        for key in ("name", "value"):
            text = option.get(key) or ""
            if not text.isprintable() or " " in text:
                where = f"{field}.options[{index}].{key}"
                why = "must not contain blanks or control characters"
                yield invalid(where, text, why)


def _check_searches(searches: Sequence[str], field: str) -> Iterator[FieldError]:
    if len(searches) > MAX_SEARCHES:
        yield invalid(
            field,
            list(searches),
            f"must not have more than {MAX_SEARCHES} search paths",
        )
    if len(" ".join(searches)) > MAX_SEARCH_CHARS:
        yield invalid(
            field,
            list(searches),
            f"must not have more than {MAX_SEARCH_CHARS} characters (including spaces) "
            "in the search list",
        )
    for index, search in enumerate(searches):
        if search != ".":
            yield from check_text(
                f"{field}[{index}]",
                search.removesuffix("."),
                check_dns1123_subdomain_underscore,
            )


def _check_gates(spec: Document, field: str) -> Iterator[FieldError]:
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        yield from check_text(
            f"{field}.readinessGates[{index}].conditionType",
            gate.get("conditionType") or "",
            check_qualified_name,
        )
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        where, name = f"{field}.schedulingGates[{index}]", gate.get("name") or ""
        yield from check_text(where, name, check_qualified_name)
        if name in seen:
            yield duplicate(where, name)
        seen.add(name)


def _check_hostname(spec: Document, field: str, scope: Scope) -> Iterator[FieldError]:
    override = spec.get("hostnameOverride")
    if override is None:
        return
    where = f"{field}.hostnameOverride"
    if not scope.gates.enabled("HostnameOverride"):
        yield forbidden_field(
            where, "may only be set when the feature gate HostnameOverride is on"
        )
    if spec.get("setHostnameAsFQDN"):
        yield forbidden_field(
            where, "may not be specified when setHostnameAsFQDN is true"
        )
    if spec.get("hostNetwork"):
        yield forbidden_field(where, "may not be specified when hostNetwork is true")
    if len(override) > _MAX_HOSTNAME_OVERRIDE:
        yield too_long(where, _MAX_HOSTNAME_OVERRIDE)
    yield from check_text(where, override, check_dns1123_subdomain)


def _check_names(spec: Document, field: str) -> Iterator[FieldError]:
    for key in ("serviceAccountName", "nodeName"):
        if spec.get(key):
            yield from check_text(f"{field}.{key}", spec[key], check_dns1123_subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= MAX_INT32:
        yield invalid(
            f"{field}.activeDeadlineSeconds", deadline, in_range(1, MAX_INT32)
        )
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            yield from check_text(f"{field}.{key}", spec[key], check_dns1123_label)


def _check_host_aliases(spec: Document, field: str) -> Iterator[FieldError]:
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        where = f"{field}[{index}]"
        yield from check_text(f"{where}.ip", alias.get("ip") or "", check_ip)
        for number, hostname in enumerate(alias.get("hostnames") or ()):
            yield from check_text(
                f"{where}.hostnames[{number}]", hostname, check_dns1123_subdomain
            )


def _check_classes(spec: Document, field: str) -> Iterator[FieldError]:
    if spec.get("priorityClassName"):
        yield from check_text(
            f"{field}.priorityClassName",
            spec["priorityClassName"],
            check_dns1123_subdomain,
        )
    if spec.get("runtimeClassName") is not None:
        yield from check_text(
            f"{field}.runtimeClassName",
            spec["runtimeClassName"],
            check_dns1123_subdomain,
        )
    policy = spec.get("preemptionPolicy")
    if policy is not None and policy not in _PREEMPTION_POLICIES:
        yield not_supported(f"{field}.preemptionPolicy", policy, _PREEMPTION_POLICIES)
    if spec.get("overhead") is not None:
        yield from check_overhead(spec["overhead"], f"{field}.overhead")


def check_overhead(overhead: Document, field: str) -> Iterator[FieldError]:
    """Check the overhead of a Pod or RuntimeClass; it is ruled like limits."""
    yield from check_container_resources({"limits": overhead}, field)


def _check_file_keys(spec: Document, field: str) -> Iterator[FieldError]:
    kinds = volume_sources(spec.get("volumes") or ())
    for path, container in all_containers(spec):
        for index, variable in enumerate(container.get("env") or ()):
            reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
            if reference is None:
                continue
            name = reference.get("volumeName") or ""
            where = f"{field}.{path}.env[{index}].valueFrom.fileKeyRef.volumeName"
            if name not in kinds:
                yield missing(where, name)
            elif "emptyDir" not in kinds[name]:
                yield invalid(where, name, "referenced volume must be of type emptyDir")
