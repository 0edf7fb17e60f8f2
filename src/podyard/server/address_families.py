"""Which address families a Service has: asked for, inferred, or the cluster's own.

Source: kubernetes ``pkg/registry/core/service/storage`` (v1.36) and
https://kubernetes.io/docs/concepts/services-networking/dual-stack/
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Final

from podyard.api.documents import Document
from podyard.api.errors import ApiError, FieldError, invalid, invalid_object

HEADLESS: Final = "None"
_OTHER: Final = {"IPv4": "IPv6", "IPv6": "IPv4"}
_POLICY: Final = "spec.ipFamilyPolicy"
_ONLY_DUAL: Final = "must be 'RequireDualStack' or 'PreferDualStack' when multiple "
_FIELDS: Final = ("ipFamilies", "ipFamilyPolicy", "clusterIPs", "clusterIP")


def family_of(ip: str) -> str:
    """Return ``IPv4`` or ``IPv6``; ``ValueError`` where it is no address."""
    return f"IPv{ip_address(ip).version}"


def fill_families(
    service: Document, old: Document | None, configured: Sequence[str]
) -> None:
    """Fill ``ipFamilyPolicy`` and ``ipFamilies`` of a Service, in place.

    Args:
        service: about to be stored.
        old: the stored one, when it changes.
        configured: the families of this cluster, the first one first.

    Raises:
        ApiError: 422 where they cannot be had.
    """
    spec = service.get("spec") or {}
    stored = (old or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        for name in _FIELDS:
            spec.pop(name, None)
        return
    # It was made when the cluster had other families: it stays as it is.
    if _prefers_both_as_before(spec, stored):
        return
    if not spec.get("ipFamilyPolicy"):
        both = _is_bare(spec) and not spec.get("ipFamilies")
        spec["ipFamilyPolicy"] = "RequireDualStack" if both else "SingleStack"
    if spec["ipFamilyPolicy"] == "SingleStack" and stored:
        _release_second(spec, stored)
    _refuse(service, _check_counts(spec))
    families: list[str] = list(spec.get("ipFamilies") or ())
    spec["ipFamilies"] = families
    _refuse(service, _infer(spec, families, configured))
    if _is_bare(spec):
        families[:] = families or [configured[0]]
        if len(families) == 1 and spec["ipFamilyPolicy"] != "SingleStack":
            families.append(_OTHER[families[0]])
        return
    _refuse(service, _check_configured(spec, families, configured))
    families[:] = families or [configured[0]]
    wants_both = spec["ipFamilyPolicy"] != "SingleStack" and len(configured) > 1
    if wants_both and len(families) == 1:
        families.append(_OTHER[families[0]])


def _is_bare(spec: dict[str, Any]) -> bool:
    """Headless, and no endpoints of ours: any family may be written by hand."""
    return spec.get("clusterIP") == HEADLESS and not spec.get("selector")


def _prefers_both_as_before(spec: dict[str, Any], stored: dict[str, Any]) -> bool:
    if not (spec.get("ipFamilyPolicy") == stored.get("ipFamilyPolicy") is not None):
        return False
    return spec["ipFamilyPolicy"] == "PreferDualStack" and all(
        len(spec.get(name) or ()) == len(stored.get(name) or ())
        for name in ("clusterIPs", "ipFamilies")
    )


def _release_second(spec: dict[str, Any], stored: dict[str, Any]) -> None:
    """Cut what is as before: the policy alone says clearly what is meant."""
    for name in ("clusterIPs", "ipFamilies"):
        if spec.get(name) and spec[name] == stored.get(name):
            spec[name] = spec[name][:1]


def _check_counts(spec: dict[str, Any]) -> Iterator[FieldError]:
    policy = spec["ipFamilyPolicy"]
    if policy != "SingleStack":
        return
    if len(spec.get("clusterIPs") or ()) > 1:
        text = f"{_ONLY_DUAL}cluster IPs are specified"
        yield invalid(_POLICY, policy, text)
    if len(spec.get("ipFamilies") or ()) > 1:
        text = f"{_ONLY_DUAL}IP families are specified"
        yield invalid(_POLICY, policy, text)


def _infer(
    spec: dict[str, Any], families: list[str], configured: Sequence[str]
) -> Iterator[FieldError]:
    """Take the families of the addresses that are asked for."""
    listed = spec.get("clusterIPs") or [spec.get("clusterIP") or HEADLESS]
    for index, ip in enumerate(listed):
        if ip == HEADLESS:
            return
        try:
            family = family_of(ip)
        except ValueError:
            return  # refused where it is taken
        if index < len(families):
            continue
        if family not in configured:
            text = f"{family} is not configured on this cluster"
            yield invalid(f"spec.clusterIPs[{index}]", listed, text)
        else:
            families.append(family)


def _check_configured(
    spec: dict[str, Any], families: Sequence[str], configured: Sequence[str]
) -> Iterator[FieldError]:
    policy = spec["ipFamilyPolicy"]
    if policy == "RequireDualStack" and len(configured) < 2:
        text = "this cluster is not configured for dual-stack services"
        yield invalid(_POLICY, policy, text)
    for index, family in enumerate(families):
        if family not in configured:
            text = "not configured on this cluster"
            yield invalid(f"spec.ipFamilies[{index}]", family, text)


def _refuse(service: Document, errors: Iterator[FieldError]) -> None:
    found = list(errors)
    if found:
        raise refused(service, found)


def refused(service: Document, errors: Sequence[FieldError]) -> ApiError:
    """Return the 422 about a Service."""
    name = (service.get("metadata") or {}).get("name") or ""
    return invalid_object("", "Service", name, errors)
