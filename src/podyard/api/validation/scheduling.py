"""Rules of affinity, tolerations, taints and topology spread.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.labels import parse_int64
from podyard.api.syntax import (
    check_dns1123_label,
    check_dns1123_subdomain,
    check_label_value,
    check_qualified_name,
)
from podyard.api.validation.faults import check_positive, check_text
from podyard.api.validation.object_meta import check_label_selector
from podyard.api.validation.scope import Scope

TAINT_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_DECIMAL = re.compile(r"0|-?[1-9][0-9]*")
_WEIGHT: Final = "must be in the range 1-100"
_UNSATISFIABLE: Final = ("DoNotSchedule", "ScheduleAnyway")
_INCLUSION: Final = ("Honor", "Ignore")


def check_affinity(affinity: Document | None, field: str) -> Iterator[FieldError]:
    """Check the node and Pod affinity of a Pod spec."""
    if affinity is None:
        return
    if affinity.get("nodeAffinity") is not None:
        yield from _check_node_affinity(
            affinity["nodeAffinity"], f"{field}.nodeAffinity"
        )
    for name in ("podAffinity", "podAntiAffinity"):
        if affinity.get(name) is not None:
            yield from _check_pod_affinity(affinity[name], f"{field}.{name}")


def check_node_selector(selector: Document, field: str) -> Iterator[FieldError]:
    """Check the terms of a node selector."""
    terms = selector.get("nodeSelectorTerms") or []
    where = f"{field}.nodeSelectorTerms"
    if not terms:
        yield required(where, "must have at least one node selector term")
    for index, term in enumerate(terms):
        yield from _check_node_term(term, f"{where}[{index}]", strict=True)


def _check_node_affinity(affinity: Document, field: str) -> Iterator[FieldError]:
    if affinity.get(_REQUIRED) is not None:
        yield from check_node_selector(affinity[_REQUIRED], f"{field}.{_REQUIRED}")
    for index, wish in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{field}.{_PREFERRED}[{index}]"
        weight = wish.get("weight") or 0
        if not 1 <= weight <= 100:
            yield invalid(f"{where}.weight", weight, _WEIGHT)
        term = wish.get("preference") or {}
        yield from _check_node_term(term, f"{where}.preference", strict=False)


def _check_node_term(
    term: Document, field: str, *, strict: bool
) -> Iterator[FieldError]:
    for index, entry in enumerate(term.get("matchExpressions") or ()):
        where = f"{field}.matchExpressions[{index}]"
        yield from _check_node_requirement(entry, where, strict=strict)
    for index, entry in enumerate(term.get("matchFields") or ()):
        yield from _check_node_field(entry, f"{field}.matchFields[{index}]")


def _check_node_requirement(
    entry: Document, field: str, *, strict: bool
) -> Iterator[FieldError]:
    operator, values = entry.get("operator") or "", entry.get("values") or []
    where = f"{field}.values"
    match operator:
        case "In" | "NotIn":
            if not values:
                yield required(
                    where, "must be specified when `operator` is 'In' or 'NotIn'"
                )
        case "Exists" | "DoesNotExist":
            if values:
                yield forbidden_field(
                    where,
                    "may not be specified when `operator` is 'Exists' or "
                    "'DoesNotExist'",
                )
        case "Gt" | "Lt":
            if len(values) != 1:
                yield required(
                    where,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                )
        case _:
            yield invalid(
                f"{field}.operator", operator, "not a valid selector operator"
            )
    yield from check_text(f"{field}.key", entry.get("key") or "", check_qualified_name)
    if strict:
        for index, value in enumerate(values):
            yield from check_text(f"{where}[{index}]", value, check_label_value)


def _check_node_field(entry: Document, field: str) -> Iterator[FieldError]:
    operator, values = entry.get("operator") or "", entry.get("values") or []
    if operator not in {"In", "NotIn"}:
        yield invalid(f"{field}.operator", operator, "not a valid selector operator")
    elif len(values) != 1:
        yield required(
            f"{field}.values",
            "must be only one value when `operator` is 'In' or 'NotIn' for node field "
            "selector",
        )
    if entry.get("key") != "metadata.name":
        yield invalid(
            f"{field}.key", entry.get("key") or "", "not a valid field selector key"
        )
        return
    for index, value in enumerate(values):
        yield from check_text(
            f"{field}.values[{index}]", value, check_dns1123_subdomain
        )


def _check_pod_affinity(affinity: Document, field: str) -> Iterator[FieldError]:
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        yield from _check_pod_term(term, f"{field}.{_REQUIRED}[{index}]")
    for index, wish in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{field}.{_PREFERRED}[{index}]"
        weight = wish.get("weight") or 0
        if not 1 <= weight <= 100:
            yield invalid(f"{where}.weight", weight, _WEIGHT)
        term = wish.get("podAffinityTerm") or {}
        yield from _check_pod_term(term, f"{where}.podAffinityTerm")


def _check_pod_term(term: Document, field: str) -> Iterator[FieldError]:
    selector = term.get("labelSelector")
    yield from check_label_selector(selector, f"{field}.labelSelector")
    yield from check_label_selector(
        term.get("namespaceSelector"), f"{field}.namespaceSelector"
    )
    for name in term.get("namespaces") or ():
        yield from check_text(f"{field}.namespace", name, check_dns1123_label)
    yield from _check_match_keys(
        field,
        term.get("matchLabelKeys") or [],
        term.get("mismatchLabelKeys") or [],
        selector,
    )
    key = term.get("topologyKey") or ""
    if not key:
        yield required(f"{field}.topologyKey", "can not be empty")
    yield from check_text(f"{field}.topologyKey", key, check_qualified_name)


def _check_match_keys(
    field: str,
    keys: Sequence[str],
    other_keys: Sequence[str],
    selector: Document | None,
) -> Iterator[FieldError]:
    for name, listed in (("matchLabelKeys", keys), ("mismatchLabelKeys", other_keys)):
        where = f"{field}.{name}"
        if listed and selector is None:
            yield forbidden_field(
                where, "must not be specified when labelSelector is not set"
            )
        elif listed:
            for index, key in enumerate(listed):
                yield from check_text(f"{where}[{index}]", key, check_qualified_name)
    seen: set[str] = set((selector or {}).get("matchLabels") or ())
    for entry in (selector or {}).get("matchExpressions") or ():
        key = entry.get("key") or ""
        if key in keys and key in seen:
            yield invalid(
                f"{field}[{list(keys).index(key)}]",
                key,
                "exists in both matchLabelKeys and labelSelector",
            )
        seen.add(key)
    for index, key in enumerate(keys):
        if key in other_keys:
            yield invalid(
                f"{field}.matchLabelKeys[{index}]",
                key,
                "exists in both matchLabelKeys and mismatchLabelKeys",
            )


def check_taint_effect(
    effect: str, field: str, *, may_be_empty: bool
) -> Iterator[FieldError]:
    """Check the effect of a taint or toleration."""
    if not effect and not may_be_empty:
        yield required(field)
    elif effect not in TAINT_EFFECTS:
        yield not_supported(field, effect, TAINT_EFFECTS)


def check_taints(taints: Sequence[Document], field: str) -> Iterator[FieldError]:
    """Check the taints of a node."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        where = f"{field}[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        yield from check_text(f"{where}.key", key, check_qualified_name)
        texts = check_label_value(taint.get("value") or "")
        if texts:
            yield invalid(f"{where}.value", taint["value"], ";".join(texts))
        yield from check_taint_effect(effect, f"{where}.effect", may_be_empty=False)
        if (key, effect) in seen:
            yield FieldError(
                FieldErrorType.DUPLICATE,
                where,
                "taints must be unique by key and effect pair",
                taint,
            )
        seen.add((key, effect))


def check_tolerations(
    tolerations: Sequence[Document], field: str, scope: Scope
) -> Iterator[FieldError]:
    """Check the tolerations of a Pod spec."""
    for index, toleration in enumerate(tolerations):
        where = f"{field}[{index}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        effect = toleration.get("effect") or ""
        if key:
            yield from check_text(f"{where}.key", key, check_qualified_name)
        elif operator != "Exists":
            yield invalid(
                f"{where}.operator",
                operator,
                "operator must be Exists when `key` is empty, which means "
                '"match all values and all keys"',
            )
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            yield invalid(
                f"{where}.effect",
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            )
        yield from _check_toleration_value(toleration, where, scope)
        if effect:
            yield from check_taint_effect(effect, f"{where}.effect", may_be_empty=True)


def _check_toleration_value(
    toleration: Document, field: str, scope: Scope
) -> Iterator[FieldError]:
    value, where = toleration.get("value") or "", f"{field}.operator"
    operator = toleration.get("operator") or "Equal"
    match operator:
        case "Equal":
            texts = check_label_value(value)
            if texts:
                yield invalid(where, value, ";".join(texts))
        case "Exists":
            if value:
                yield invalid(
                    where, value, "value must be empty when `operator` is 'Exists'"
                )
        case "Lt" | "Gt":
            if not scope.gates.enabled("TaintTolerationComparisonOperators"):
                yield not_supported(where, operator, ("Equal", "Exists", "Lt", "Gt"))
            elif not _DECIMAL.fullmatch(value) or parse_int64(value) is None:
                yield invalid(
                    f"{field}.value", value, "must be a valid decimal integer"
                )
        case _:
            yield not_supported(where, operator, ("Equal", "Exists"))


def check_topology_spread(
    constraints: Sequence[Document], field: str
) -> Iterator[FieldError]:
    """Check the topology spread constraints of a Pod spec."""
    pairs = [
        (entry.get("topologyKey") or "", entry.get("whenUnsatisfiable") or "")
        for entry in constraints
    ]
    for index, constraint in enumerate(constraints):
        where = f"{field}[{index}]"
        key, action = pairs[index]
        yield from check_positive(f"{where}.maxSkew", constraint.get("maxSkew"))
        if not key:
            yield required(f"{where}.topologyKey", "can not be empty")
        if action not in _UNSATISFIABLE:
            yield not_supported(f"{where}.whenUnsatisfiable", action, _UNSATISFIABLE)
        if (key, action) in pairs[index + 1 :]:
            yield duplicate(
                f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"
            )
        yield from _check_spread_details(constraint, where, action)


def _check_spread_details(
    constraint: Document, field: str, action: str
) -> Iterator[FieldError]:
    domains = constraint.get("minDomains")
    if domains is not None:
        yield from check_positive(f"{field}.minDomains", domains)
        if action != "DoNotSchedule":
            yield invalid(
                f"{field}.minDomains",
                domains,
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "
                f"{action}",
            )
    for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        policy = constraint.get(name)
        if policy is not None and policy not in _INCLUSION:
            yield not_supported(f"{field}.{name}", policy, _INCLUSION)
    selector = constraint.get("labelSelector")
    keys = constraint.get("matchLabelKeys") or []
    yield from _check_match_keys(field, keys, [], selector)
    yield from check_label_selector(selector, f"{field}.labelSelector")
