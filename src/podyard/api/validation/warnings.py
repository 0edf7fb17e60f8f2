"""Warnings: what works but should not be written any more.

They travel in ``Warning`` headers and never refuse a request.

Source: ``pkg/api/pod/warnings.go`` and ``pkg/api/{service,node}`` (v1.36).
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.go_text import quote
from podyard.api.pod_templates import all_containers, template_of
from podyard.api.quantity import parse_quantity
from podyard.api.scheme import (
    CRON_JOB,
    ENDPOINTS,
    NODE,
    POD,
    RUNTIME_CLASS,
    SERVICE,
    Kind,
)
from podyard.api.syntax import check_dns1123_label

_NODE_LABELS: Final = {
    "beta.kubernetes.io/arch": (
        'deprecated since v1.14; use "kubernetes.io/arch" instead'
    ),
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": (
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead'
    ),
    "failure-domain.beta.kubernetes.io/zone": (
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
    ),
    "beta.kubernetes.io/instance-type": (
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'
    ),
}
_ANNOTATIONS: Final = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
}
_VOLUMES: Final = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def object_warnings(
    kind: Kind, document: Document, old: Document | None = None
) -> tuple[str, ...]:
    """Return the warnings about one object; of an update, only the new ones.

    Args:
        kind: what the documents are.
        document: what is wanted, defaulted.
        old: what is stored, ``None`` for a new object.
    """
    found = dict.fromkeys(_of_kind(kind, document))
    known = set(_of_kind(kind, old)) if old is not None else set()
    return tuple(text for text in found if text not in known)


def _of_kind(kind: Kind, document: Document) -> Iterator[str]:
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    if kind is POD:
        yield from _of_pod(metadata, spec, "spec")
        name = metadata.get("name") or ""
        if name and check_dns1123_label(name):
            yield (
                "metadata.name: this is used in the Pod's hostname, which can result "
                "in surprising behavior; a DNS label is recommended: "
                f"{check_dns1123_label(name)}"
            )
    elif kind is SERVICE:
        yield from _of_service(spec)
    elif kind is ENDPOINTS:
        yield (
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 "
            "EndpointSlice"
        )
    elif kind is NODE:
        yield from _of_node(spec)
    elif kind is RUNTIME_CLASS:
        selector = (document.get("scheduling") or {}).get("nodeSelector") or {}
        yield from _of_labels(selector, "scheduling.nodeSelector")
    template = template_of(kind, document)
    if template is not None:
        path = "spec.jobTemplate.spec" if kind is CRON_JOB else "spec"
        yield from _of_pod(
            template.get("metadata") or {},
            template.get("spec") or {},
            f"{path}.template.spec",
        )


def _of_labels(labels: Document, field: str) -> Iterator[str]:
    for key in labels:
        if key in _NODE_LABELS:
            yield f"{field}[{key}]: {_NODE_LABELS[key]}"


def _of_node(spec: Document) -> Iterator[str]:
    if spec.get("configSource") is not None:
        yield (
            "spec.configSource: the feature DynamicKubeletConfig has been removed; "
            "this field is ignored"
        )
    if spec.get("externalID"):
        yield "spec.externalID: this field is deprecated, and is unused by Kubernetes"


def _of_service(spec: Document) -> Iterator[str]:
    if spec.get("externalName") and spec.get("type") != "ExternalName":
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    headless = spec.get("clusterIP") == "None"
    if headless and spec.get("loadBalancerIP"):
        yield "spec.loadBalancerIP is ignored for headless services"
    if spec.get("externalIPs") and headless:
        yield 'spec.externalIPs is ignored when spec.clusterIP is "None"'
    if headless and spec.get("sessionAffinity") not in {None, "", "None"}:
        yield "spec.SessionAffinity is ignored for headless services"
    for key in ("clusterIPs", "externalIPs", "loadBalancerSourceRanges"):
        for index, value in enumerate(spec.get(key) or ()):
            yield from _of_address(value, f"spec.{key}[{index}]")


def _of_address(value: str, field: str) -> Iterator[str]:
    try:
        canonical = str(ipaddress.ip_address(value))
    except ValueError:
        return
    if ":" in value and canonical != value:
        yield (
            f"{field}: IPv6 address {quote(value)} should be in RFC 5952 canonical "
            f"format ({quote(canonical)})"
        )


def _of_pod(metadata: Document, spec: Document, field: str) -> Iterator[str]:
    annotations = metadata.get("annotations") or {}
    for key, text in _ANNOTATIONS.items():
        if key in annotations:
            yield f"metadata.annotations[{key}]: {text}"
    yield from _of_labels(spec.get("nodeSelector") or {}, f"{field}.nodeSelector")
    yield from _of_affinity(spec, field)
    yield from _of_spread(spec, field)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        hosts = spec.get("hostAliases") or []
        same = [other.get("ip") for other in hosts[:index]]
        if alias.get("ip") in same:
            yield (
                f"{field}.hostAliases[{index}].ip: duplicate ip "
                f"{quote(alias.get('ip') or '')}"
            )
    yield from _of_pull_secrets(spec.get("imagePullSecrets") or (), field)
    yield from _of_volumes(spec.get("volumes") or (), field)
    yield from _of_containers(spec, field)
    yield from _of_overhead(spec, field)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield (
            f"{field}.terminationGracePeriodSeconds: must be >= 0; negative values are "
            "invalid and will be treated as 1"
        )


def _of_affinity(spec: Document, field: str) -> Iterator[str]:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    where = f"{field}.affinity.nodeAffinity"
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for index, term in enumerate(needed.get("nodeSelectorTerms") or ()):
        path = (
            f"{where}.requiredDuringSchedulingIgnoredDuringExecution."
            f"nodeSelectorTerms[{index}]"
        )
        yield from _of_term(term, path)
    wishes = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for index, wish in enumerate(wishes):
        path = (
            f"{where}.preferredDuringSchedulingIgnoredDuringExecution[{index}]."
            "preference"
        )
        yield from _of_term(wish.get("preference") or {}, path)


def _of_term(term: Document, field: str) -> Iterator[str]:
    for index, entry in enumerate(term.get("matchExpressions") or ()):
        text = _NODE_LABELS.get(entry.get("key") or "")
        if text:
            yield f"{field}.matchExpressions[{index}].key: {entry['key']} is {text}"


def _of_spread(spec: Document, field: str) -> Iterator[str]:
    for index, entry in enumerate(spec.get("topologySpreadConstraints") or ()):
        text = _NODE_LABELS.get(entry.get("topologyKey") or "")
        where = f"{field}.topologySpreadConstraints[{index}]"
        if text:
            yield f"{where}.topologyKey: {entry['topologyKey']} is {text}"
        if entry.get("labelSelector") is None:
            yield (f"{where}: a null labelSelector results in matching no pod")


def _of_pull_secrets(secrets: Sequence[Document], field: str) -> Iterator[str]:
    names: set[str] = set()
    for index, secret in enumerate(secrets):
        name = secret.get("name") or ""
        where = f"{field}.imagePullSecrets[{index}]"
        if not name:
            yield f"{where}: invalid empty name {quote('')}"
        elif name in names:
            yield f"{where}: duplicate name {quote(name)}"
        names.add(name)


def _of_volumes(volumes: Sequence[Document], field: str) -> Iterator[str]:
    for index, volume in enumerate(volumes):
        where = f"{field}.volumes[{index}]"
        for name, text in _VOLUMES.items():
            if volume.get(name) is not None:
                yield f"{where}.{name}: {text}"
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is not None:
            yield from _of_fraction(limit, f"{where}.emptyDir.sizeLimit")


def _of_fraction(amount: str, field: str) -> Iterator[str]:
    quantity = parse_quantity(amount)
    if quantity.milli_value % 1000:
        yield (
            f"{field}: fractional byte value {quote(str(quantity))} is invalid, must "
            "be an integer"
        )


def _of_containers(spec: Document, field: str) -> Iterator[str]:
    for path, container in all_containers(spec):
        where = f"{field}.{path}"
        resources = container.get("resources") or {}
        for which in ("limits", "requests"):
            for name in ("memory", "ephemeral-storage"):
                amount = (resources.get(which) or {}).get(name)
                if amount is not None:
                    yield from _of_fraction(
                        amount, f"{where}.resources.{which}[{name}]"
                    )
        yield from _of_env(container.get("env") or (), where)
        yield from _of_ports(container, where)
        yield from _of_pre_stop(container, spec, where)


def _of_pre_stop(container: Document, spec: Document, field: str) -> Iterator[str]:
    pre_stop = (container.get("lifecycle") or {}).get("preStop") or {}
    sleep_s = (pre_stop.get("sleep") or {}).get("seconds")
    grace_s = spec.get("terminationGracePeriodSeconds")
    if sleep_s and grace_s is not None and sleep_s >= grace_s > 0:
        yield (
            f"{field}.lifecycle.preStop.sleep.seconds: the hook sleeps as long as "
            f"spec.terminationGracePeriodSeconds ({grace_s}), so the container gets "
            "only 2 seconds between its stop signal and SIGKILL"
        )


def _of_env(variables: Sequence[Document], field: str) -> Iterator[str]:
    names: dict[str, Document] = {}
    for index, variable in enumerate(variables):
        name = variable.get("name") or ""
        earlier = names.get(name)
        # A variable that builds on its earlier self is meant.
        if earlier is not None and f"$({name})" not in (variable.get("value") or ""):
            yield (
                f"{field}.env[{index}]: hides previous definition of {quote(name)}, "
                "which may be dropped when using apply"
            )
        names[name] = variable


def _of_ports(container: Document, field: str) -> Iterator[str]:
    seen: set[tuple[object, ...]] = set()
    for index, port in enumerate(container.get("ports") or ()):
        claim = (port.get("containerPort"), port.get("protocol"), port.get("hostPort"))
        if claim in seen:
            yield f"{field}.ports[{index}]: duplicate port definition with earlier port"
        seen.add(claim)


def _of_overhead(spec: Document, field: str) -> Iterator[str]:
    for name in ("memory", "ephemeral-storage"):
        amount = (spec.get("overhead") or {}).get(name)
        if amount is not None:
            yield from _of_fraction(amount, f"{field}.overhead[{name}]")
