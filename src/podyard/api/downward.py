"""The downward API: what a Pod may be told about itself.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/ and
upstream's ``fieldpath`` and ``api/v1/resource`` (v1.36).
"""

import re
from collections.abc import Mapping

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.go_text import quote
from podyard.api.quantity import QuantityError, parse_quantity

_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]", re.DOTALL)
#: Limits that fall back to the Pod's own, then to what the node has to give.
_DEFAULTED_LIMITS = ("cpu", "memory", "ephemeral-storage")


class DownwardError(ValueError):
    """A field or resource cannot be told; the message is upstream's."""


def format_map(pairs: Mapping[str, str]) -> str:
    """Return labels or annotations as files show them: ``key="value"`` lines."""
    return "\n".join(f"{key}={quote(pairs[key])}" for key in sorted(pairs))


def metadata_field(pod: Pod, path: str) -> str:
    """Return a metadata field; a missing label or annotation is empty.

    Raises:
        DownwardError: there is no such field.
    """
    meta = pod.metadata
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        pairs = meta.labels if subscript[1].endswith("labels") else meta.annotations
        return str(pairs.get(subscript[2], ""))
    match path:
        case "metadata.annotations":
            return format_map(meta.annotations)
        case "metadata.labels":
            return format_map(meta.labels)
        case "metadata.name":
            return meta.name
        case "metadata.namespace":
            return meta.namespace
        case "metadata.uid":
            return meta.uid
        case _:
            raise DownwardError(f"unsupported fieldPath: {path}")


def env_field(
    pod: Pod, path: str, *, pod_ips: tuple[str, ...], host_ips: tuple[str, ...]
) -> str:
    """Return a field as a variable may show it.

    Raises:
        DownwardError: there is no such field.
    """
    match path:
        case "spec.nodeName":
            return pod.spec.node_name
        case "spec.serviceAccountName":
            return pod.spec.service_account_name
        case "status.hostIP":
            return host_ips[0] if host_ips else ""
        case "status.hostIPs":
            return ",".join(host_ips)
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
        case _:
            return metadata_field(pod, path)


def resource_field(
    pod: Pod,
    container: Container | None,
    selector: Document,
    *,
    node_allocatable: Mapping[str, str],
) -> str:
    """Return a request or limit in units of its divisor, rounded up.

    Args:
        pod: the Pod.
        container: whose resources, where the selector names no container.
        selector: a ResourceFieldSelector.
        node_allocatable: stands in for limits that are not set.

    Raises:
        DownwardError: no such container or resource, or a bad quantity.
    """
    name = selector.get("containerName") or ""
    holder = _find(pod, name) if name else container
    if holder is None:
        raise DownwardError(f"container {name} not found")
    resource = str(selector.get("resource", ""))
    which, _, what = resource.partition(".")
    if which not in {"limits", "requests"} or not (
        what in _DEFAULTED_LIMITS or what.startswith("hugepages-")
    ):
        raise DownwardError(f"unsupported container resource : {resource}")
    try:
        amount = parse_quantity(_amount(pod, holder, which, what, node_allocatable))
        divisor = parse_quantity(selector.get("divisor") or "1")
        if not divisor:
            divisor = parse_quantity("1")
        if what == "cpu":
            return str(-(-amount.milli_value // divisor.milli_value))
        return str(-(-amount.value // divisor.value))
    except QuantityError as error:
        raise DownwardError(str(error)) from error


def _find(pod: Pod, name: str) -> Container | None:
    listed = pod.spec.containers + pod.spec.init_containers
    return next((c for c in listed if c.name == name), None)


def _amount(
    pod: Pod,
    holder: Container,
    which: str,
    what: str,
    node_allocatable: Mapping[str, str],
) -> str:
    if which == "requests":
        return holder.resources.requests.get(what, "0")
    own = holder.resources.limits.get(what, "0")
    if parse_quantity(own) or what not in _DEFAULTED_LIMITS:
        return own
    if pod.spec.resources is not None and what in pod.spec.resources.limits:
        return pod.spec.resources.limits[what]
    return str(node_allocatable.get(what, "0"))
