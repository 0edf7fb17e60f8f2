"""Rules of resource requests and limits.

Source: ``pkg/apis/core/validation`` and ``apis/core/helper`` (v1.36), and
https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

from collections.abc import Callable, Iterator, Sequence
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
from podyard.api.quantity import Quantity, QuantityError, parse_quantity
from podyard.api.resources import (
    HUGEPAGES_PREFIX,
    ResourceList,
    is_extended_resource,
    is_hugepage,
    is_native_resource,
    is_pod_level_resource,
    parse_resources,
    pod_limits,
    pod_requests,
)
from podyard.api.syntax import check_dns1123_label, check_qualified_name
from podyard.api.validation.faults import NEGATIVE, check_text, missing

_CONTAINER_RESOURCES: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_QUOTA_COUNTS: Final = frozenset(
    [
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ]
)
_STANDARD_RESOURCES: Final = (
    _CONTAINER_RESOURCES
    | _QUOTA_COUNTS
    | {"storage", "requests.storage"}
    | {
        f"{which}.{name}"
        for which in ("requests", "limits")
        for name in _CONTAINER_RESOURCES
    }
)
_POD_LEVEL: Final = ("cpu", "hugepages-", "memory")

_NameRule = Callable[[str, str], Iterator[FieldError]]


def check_container_resources(
    resources: Document, field: str, claim_names: frozenset[str] = frozenset()
) -> Iterator[FieldError]:
    """Check the requests, limits and claims of a container (or an overhead)."""
    yield from _check_requirements(resources, field, _check_container_name)
    claims = resources.get("claims") or ()
    yield from _check_claims(claims, f"{field}.claims", claim_names)


def _is_overcommitted(name: str) -> bool:
    return is_native_resource(name) and not is_hugepage(name)


def _check_requirements(
    resources: Document, field: str, check_name: _NameRule
) -> Iterator[FieldError]:
    limits = parse_resources(resources.get("limits"))
    requests = parse_resources(resources.get("requests"))
    for name, amount in limits.items():
        yield from _check_amount(name, amount, f"{field}.limits[{name}]", check_name)
    for name, amount in requests.items():
        where = f"{field}.requests[{name}]"
        yield from _check_amount(name, amount, where, check_name)
        yield from _check_against_limit(name, amount, limits, field)
    names = limits.keys() | requests.keys()
    if any(map(is_hugepage, names)) and not names & {"cpu", "memory"}:
        yield forbidden_field(field, "HugePages require cpu or memory")


def _check_amount(
    name: str, amount: Quantity, field: str, check_name: _NameRule
) -> Iterator[FieldError]:
    yield from check_name(name, field)
    yield from check_quantity(name, amount, field)
    if is_hugepage(name) and not _is_whole_pages(name, amount):
        text = f"{amount} is not positive integer multiple of {name}"
        yield invalid(field, str(amount), text)


def check_quantity(name: str, amount: Quantity, field: str) -> Iterator[FieldError]:
    """Check that an amount is not negative, and whole where the resource is."""
    if amount.nano < 0:
        yield invalid(field, str(amount), NEGATIVE)
    is_integer = name in _QUOTA_COUNTS or is_extended_resource(name)
    if is_integer and amount.milli_value % 1000:
        yield invalid(field, str(amount), "must be an integer")


def _is_whole_pages(name: str, amount: Quantity) -> bool:
    try:
        page = parse_quantity(name.removeprefix(HUGEPAGES_PREFIX))
    except QuantityError:
        return False
    return page.value > 0 and amount.value % page.value == 0


def _check_against_limit(
    name: str, amount: Quantity, limits: ResourceList, field: str
) -> Iterator[FieldError]:
    limit = limits.get(name)
    where = f"{field}.requests"
    if limit is None:
        if not _is_overcommitted(name):
            yield required(
                f"{field}.limits", "Limit must be set for non overcommitable resources"
            )
    elif amount != limit and not _is_overcommitted(name):
        yield invalid(where, str(amount), f"must be equal to {name} limit of {limit}")
    elif amount > limit:
        yield invalid(
            where,
            str(amount),
            f"must be less than or equal to {name} limit of {limit}",
        )


def _check_resource_name(name: str, field: str) -> Iterator[FieldError]:
    faults = list(check_text(field, name, check_qualified_name))
    if faults:
        yield from faults
    elif "/" not in name and name not in _STANDARD_RESOURCES and not is_hugepage(name):
        yield invalid(
            field, name, "must be a standard resource type or fully qualified"
        )


def _check_container_name(name: str, field: str) -> Iterator[FieldError]:
    yield from _check_resource_name(name, field)
    if "/" not in name:
        if name not in _CONTAINER_RESOURCES and not is_hugepage(name):
            yield invalid(field, name, "must be a standard resource for containers")
    elif not is_native_resource(name) and not is_extended_resource(name):
        yield invalid(field, name, "doesn't follow extended resource name standard")


def _check_pod_level_name(name: str, field: str) -> Iterator[FieldError]:
    faults = list(_check_resource_name(name, field))
    yield from faults
    if not faults and not is_pod_level_resource(name):
        yield not_supported(field, name, _POD_LEVEL)


def _check_claims(
    claims: Sequence[Document], field: str, known: frozenset[str]
) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        where = f"{field}[{index}]"
        name, request = claim.get("name") or "", claim.get("request") or ""
        if not name:
            yield required(where)
            continue
        key = f"{name}/{request}" if request else name
        if request:
            yield from check_text(f"{where}.request", request, check_dns1123_label)
        overlaps = not request and any(entry.startswith(f"{name}/") for entry in seen)
        if name in seen or overlaps:
            yield duplicate(where, name)
        elif key in seen:
            yield duplicate(where, key)
        seen.add(key)
        if name not in known:
            names = f": {', '.join(sorted(known))}" if known else " which is empty"
            detail = f"must be one of the names in pod.spec.resourceClaims{names}"
            yield missing(where, name, detail)


def check_pod_resources(spec: Document, field: str) -> Iterator[FieldError]:
    """Check the resources of the Pod as a whole against those of its containers."""
    resources = spec.get("resources")
    if resources is None:
        return
    where = f"{field}.resources"
    if (spec.get("os") or {}).get("name") == "windows":
        yield forbidden_field(where, "may not be set for a windows pod")
        return
    if resources.get("claims") is not None:
        yield forbidden_field(
            f"{where}.claims", "claims may not be set for Resources at pod-level"
        )
    yield from _check_requirements(resources, where, _check_pod_level_name)
    yield from _check_consistency(spec, where)


def _check_consistency(spec: Document, field: str) -> Iterator[FieldError]:
    containers = {"spec": {k: v for k, v in spec.items() if k != "resources"}}
    requests = parse_resources(spec["resources"].get("requests"))
    limits = parse_resources(spec["resources"].get("limits"))
    for name, total in pod_requests(containers, include_overhead=False).items():
        if name in requests and total > requests[name]:
            yield invalid(
                f"{field}.requests[{name}]",
                str(requests[name]),
                "must be greater than or equal to aggregate container requests of "
                f"{total}",
            )
    for name, total in pod_limits(containers, include_overhead=False).items():
        if is_hugepage(name) and name in limits and total > limits[name]:
            yield invalid(
                f"{field}.limits[{name}]",
                str(limits[name]),
                "must be greater than or equal to aggregate container limits of "
                f"{total}",
            )
    for index, container in enumerate(spec.get("containers") or ()):
        own = parse_resources((container.get("resources") or {}).get("limits"))
        for name, limit in own.items():
            if name in limits and limit > limits[name]:
                yield invalid(
                    f"{field}.containers[{index}][{name}].limits",
                    str(limit),
                    f"must be less than or equal to pod limits of {limits[name]}",
                )
