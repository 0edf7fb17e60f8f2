"""What a Pod asks for: requests, limits, overhead and the QoS class.

Source: component-helpers ``resource`` and ``pkg/apis/core/helper/qos`` (v1.36), and
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from podyard.api.documents import Document
from podyard.api.quantity import ZERO, Quantity, parse_quantity
from podyard.api.syntax import check_qualified_name

#: Amounts by resource name.
ResourceList: TypeAlias = dict[str, Quantity]

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL_STORAGE: Final = "ephemeral-storage"
PODS: Final = "pods"
HUGEPAGES_PREFIX: Final = "hugepages-"
_NATIVE_DOMAIN: Final = "kubernetes.io/"
_QUOTA_PREFIX: Final = "requests."
_QOS_RESOURCES: Final = (CPU, MEMORY)

GUARANTEED: Final = "Guaranteed"
BURSTABLE: Final = "Burstable"
BEST_EFFORT: Final = "BestEffort"


def parse_resources(amounts: Mapping[str, object] | None) -> ResourceList:
    """Return a document's resource list as quantities.

    Raises:
        QuantityError: an amount is no quantity.
    """
    return {
        name: parse_quantity(amount)  # type: ignore[arg-type]
        for name, amount in (amounts or {}).items()
    }


def container_requests(container: Document) -> ResourceList:
    """Return what one container requests, as written.

    Raises:
        QuantityError: an amount is no quantity.
    """
    return parse_resources((container.get("resources") or {}).get("requests"))


def container_limits(container: Document) -> ResourceList:
    """Return what one container may use at most, as written.

    Raises:
        QuantityError: an amount is no quantity.
    """
    return parse_resources((container.get("resources") or {}).get("limits"))


def requests_from_limits(resources: Document) -> Document:
    """Return the requests of a container, limits standing in for missing ones."""
    limits = resources.get("limits") or {}
    requests = resources.get("requests") or {}
    return {**limits, **requests}


def is_restartable_init(container: Document) -> bool:
    """Say whether an init container is a sidecar, which keeps running."""
    return container.get("restartPolicy") == "Always"


def pod_requests(pod: Document, *, include_overhead: bool = True) -> ResourceList:
    """Return what a whole Pod needs at its hungriest moment.

    The larger of all running containers together and of each init container beside
    the sidecars started before it; Pod-level requests override, overhead is added.

    Raises:
        QuantityError: an amount is no quantity.
    """
    spec = pod.get("spec") or {}
    total = _aggregate(spec, "requests")
    total.update(_pod_level(spec, "requests"))
    if include_overhead:
        _add(total, parse_resources(spec.get("overhead")))
    return total


def pod_limits(pod: Document, *, include_overhead: bool = True) -> ResourceList:
    """Return what a whole Pod may use; a resource without any limit is absent.

    Overhead is added only to resources that have a limit.

    Raises:
        QuantityError: an amount is no quantity.
    """
    spec = pod.get("spec") or {}
    total = _aggregate(spec, "limits")
    total.update(_pod_level(spec, "limits"))
    if include_overhead:
        for name, amount in parse_resources(spec.get("overhead")).items():
            if total.get(name):
                total[name] += amount
    return total


def _aggregate(spec: Document, which: str) -> ResourceList:
    total: ResourceList = {}
    sidecars: ResourceList = {}
    init_peak: ResourceList = {}
    for container in spec.get("containers") or ():
        _add(total, _amounts(container, which))
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container, which)
        if is_restartable_init(container):
            _add(total, amounts)
            _add(sidecars, amounts)
            moment = sidecars
        else:
            moment = dict(amounts)
            _add(moment, sidecars)
        _raise_to(init_peak, moment)
    _raise_to(total, init_peak)
    return total


def _amounts(container: Document, which: str) -> ResourceList:
    return parse_resources((container.get("resources") or {}).get(which))


def _add(total: ResourceList, more: ResourceList) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, ZERO) + amount


def _raise_to(total: ResourceList, floor: ResourceList) -> None:
    for name, amount in floor.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def _pod_level(spec: Document, which: str) -> ResourceList:
    amounts = parse_resources((spec.get("resources") or {}).get(which))
    return {
        name: amount for name, amount in amounts.items() if is_pod_level_resource(name)
    }


def is_pod_level_resource(name: str) -> bool:
    """Say whether ``spec.resources`` may name this resource."""
    return name in _QOS_RESOURCES or name.startswith(HUGEPAGES_PREFIX)


def has_pod_level_resources(pod: Document) -> bool:
    """Say whether the Pod itself, not only its containers, has resources."""
    resources = (pod.get("spec") or {}).get("resources") or {}
    names = [*(resources.get("requests") or ()), *(resources.get("limits") or ())]
    return any(is_pod_level_resource(name) for name in names)


def qos_class(pod: Document) -> str:
    """Return the QoS class: the stored one, which never changes, or the computed one.

    Overhead does not count.

    Raises:
        QuantityError: an amount is no quantity.
    """
    stored = (pod.get("status") or {}).get("qosClass")
    return str(stored) if stored else compute_qos_class(pod)


def compute_qos_class(pod: Document) -> str:
    """Return the QoS class the spec asks for.

    Raises:
        QuantityError: an amount is no quantity.
    """
    spec = pod.get("spec") or {}
    if has_pod_level_resources(pod):
        holders: list[Document] = [spec]
        guaranteed = not (spec["resources"].get("limits")) or _has_all_limits(spec)
    else:
        holders = [
            *(spec.get("containers") or ()),
            *(spec.get("initContainers") or ()),
        ]
        guaranteed = all(_has_all_limits(holder) for holder in holders)
    requests = _positive(holders, "requests")
    limits = _positive(holders, "limits")
    if not requests and not limits:
        return BEST_EFFORT
    if guaranteed and requests == limits:
        return GUARANTEED
    return BURSTABLE


def _has_all_limits(holder: Document) -> bool:
    limits = container_limits(holder)
    return all(limits.get(name, ZERO) > ZERO for name in _QOS_RESOURCES)


def _positive(holders: Iterable[Document], which: str) -> ResourceList:
    total: ResourceList = {}
    for holder in holders:
        amounts = _amounts(holder, which)
        for name in _QOS_RESOURCES:
            if amounts.get(name, ZERO) > ZERO:
                _add(total, {name: amounts[name]})
    return total


def is_native_resource(name: str) -> bool:
    """Say whether Kubernetes itself names this resource (``cpu``, ``pods``)."""
    return "/" not in name or _NATIVE_DOMAIN in name


def is_extended_resource(name: str) -> bool:
    """Say whether this is a resource of a device or an administrator."""
    if is_native_resource(name) or name.startswith(_QUOTA_PREFIX):
        return False
    return not check_qualified_name(_QUOTA_PREFIX + name)


def is_hugepage(name: str) -> bool:
    """Say whether this is ``hugepages-2Mi`` and the like."""
    return name.startswith(HUGEPAGES_PREFIX)
