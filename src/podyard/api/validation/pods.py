"""Rules of Pods: new ones, changed ones, their status and their subresources.

Source: ``pkg/apis/core/validation`` (v1.36).
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.feature_gates import FeatureGates
from podyard.api.go_text import quote
from podyard.api.labels import parse_int64
from podyard.api.syntax import (
    MAX_INT32,
    check_dns1123_subdomain,
    check_ip,
    check_qualified_name,
    check_user_id,
    in_range,
)
from podyard.api.validation.containers import check_image_padding
from podyard.api.validation.differences import show_differences
from podyard.api.validation.faults import check_immutable, check_text
from podyard.api.validation.object_meta import (
    check_annotations,
    check_labels,
    validate_object_meta,
    validate_object_meta_update,
)
from podyard.api.validation.pod_spec import check_pod_spec
from podyard.api.validation.scheduling import check_tolerations
from podyard.api.validation.scope import Scope
from podyard.api.validation.security import (
    check_profile_annotations,
    check_profiles_agree,
)

MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"
_UPDATABLE: Final = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    (
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
        "previously negative)"
    ),
)
_SYSTEM_CONDITIONS: Final = frozenset({"PodScheduled", "Ready", "Initialized"})
_REQUIRED_AFFINITY: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def _annotations(pod: Document) -> dict[str, str]:
    found: dict[str, str] = (pod.get("metadata") or {}).get("annotations") or {}
    return found


def _scope(pod: Document, gates: FeatureGates) -> Scope:
    return Scope(
        gates=gates,
        is_pod=True,
        pod_name=(pod.get("metadata") or {}).get("name") or "",
        is_mirror=MIRROR_ANNOTATION in _annotations(pod),
    )


def validate_pod(pod: Document, gates: FeatureGates) -> Iterator[FieldError]:
    """Check a new Pod with its defaults filled in."""
    yield from _check_metadata_and_spec(pod, gates)
    spec = pod.get("spec") or {}
    if spec.get("ephemeralContainers"):
        yield forbidden_field("spec.ephemeralContainers", "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        yield forbidden_field(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        )
    yield from check_profiles_agree(_annotations(pod), spec, "spec")


def _check_metadata_and_spec(
    pod: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    spec = pod.get("spec") or {}
    yield from validate_object_meta(
        pod.get("metadata") or {}, namespaced=True, check_name=check_dns1123_subdomain
    )
    yield from check_pod_annotations(_annotations(pod), spec, "metadata.annotations")
    yield from check_pod_spec(spec, "spec", _scope(pod, gates))
    if not spec.get("serviceAccountName"):
        yield from _check_no_tokens(spec)
    for name in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(name) or ()):
            yield from check_image_padding(container, f"spec.{name}[{index}]")


def _check_no_tokens(spec: Document) -> Iterator[FieldError]:
    for index, volume in enumerate(spec.get("volumes") or ()):
        sources = (volume.get("projected") or {}).get("sources") or ()
        for number, source in enumerate(sources):
            if source.get("serviceAccountToken") is not None:
                yield forbidden_field(
                    f"spec.volumes[{index}].projected.sources[{number}]."
                    "serviceAccountToken",
                    "must not be specified when serviceAccountName is not set",
                )


def check_pod_annotations(
    annotations: dict[str, str], spec: Document, field: str
) -> Iterator[FieldError]:
    """Check the annotations that mean something on a Pod or template."""
    mirror = annotations.get(MIRROR_ANNOTATION)
    if mirror is not None and not spec.get("nodeName"):
        yield invalid(
            f"{field}[{MIRROR_ANNOTATION}]",
            mirror,
            "must set spec.nodeName if mirror pod annotation is set",
        )
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not _is_cost(cost):
        yield invalid(f"{field}[{_DELETION_COST}]", cost, "must be a 32bit integer")
    yield from check_profile_annotations(annotations, spec, field)


def _is_cost(text: str) -> bool:
    number = parse_int64(text)
    if number is None or text.startswith("+") or (len(text) > 1 and text[0] == "0"):
        return False
    return -MAX_INT32 - 1 <= number <= MAX_INT32


def check_pod_template(
    template: Document, field: str, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check a Pod template with its defaults filled in."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    yield from check_labels(metadata.get("labels"), f"{field}.labels")
    yield from check_annotations(annotations, f"{field}.annotations")
    yield from check_pod_annotations(annotations, spec, f"{field}.annotations")
    yield from check_pod_spec(spec, f"{field}.spec", Scope(gates=gates))
    yield from check_profiles_agree(annotations, spec, f"{field}.spec")
    if spec.get("ephemeralContainers"):
        yield forbidden_field(
            f"{field}.spec.ephemeralContainers",
            "ephemeral containers not allowed in pod template",
        )


# --- updates -----------------------------------------------------------------------


def validate_pod_update(
    new: Document, old: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check a changed Pod: very little of its spec may change."""
    yield from validate_object_meta_update(
        new.get("metadata") or {}, old.get("metadata") or {}
    )
    yield from _check_metadata_and_spec(new, gates)
    yield from _check_annotation_update(new, old)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for name in ("containers", "initContainers"):
        faults = list(_check_same_containers(after, before, name))
        yield from faults
        if any(fault.field == f"spec.{name}" for fault in faults):
            return
    faults = list(_check_deadline_update(after, before))
    yield from faults
    if any("previous value" in fault.detail for fault in faults):
        return
    yield from _check_added_tolerations(after, before, Scope(gates=gates))
    yield from _check_removed_gates(after, before)
    if after != before:
        yield from _check_rest_unchanged(after, before)


def _check_annotation_update(new: Document, old: Document) -> Iterator[FieldError]:
    after, before = _annotations(new), _annotations(old)
    for key in sorted(after.keys() | before.keys()):
        if after.get(key) == before.get(key):
            continue
        what = "mirror pod annotation" if key == MIRROR_ANNOTATION else ""
        if key.startswith(_APPARMOR_ANNOTATION):
            what = "AppArmor annotations"
        if what:
            verb = "remove or update" if key in before else "add"
            yield forbidden_field(
                f"metadata.annotations[{key}]", f"may not {verb} {what}"
            )


def _check_same_containers(
    new: Document, old: Document, name: str
) -> Iterator[FieldError]:
    after, before = new.get(name) or (), old.get(name) or ()
    if len(after) != len(before):
        yield forbidden_field(
            f"spec.{name}", "pod updates may not add or remove containers"
        )


def _check_deadline_update(new: Document, old: Document) -> Iterator[FieldError]:
    field = "spec.activeDeadlineSeconds"
    after, before = new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if after is None:
        if before is not None:
            yield invalid(
                field, None, "must not update from a positive integer to nil value"
            )
    elif not 0 <= after <= MAX_INT32:
        yield invalid(field, after, in_range(0, MAX_INT32))
    elif before is not None and before < after:
        yield invalid(field, after, "must be less than or equal to previous value")


def _check_added_tolerations(
    new: Document, old: Document, scope: Scope
) -> Iterator[FieldError]:
    after, before = new.get("tolerations") or [], old.get("tolerations") or []
    kept = [_without(toleration, "tolerationSeconds") for toleration in after]
    for toleration in before:
        if _without(toleration, "tolerationSeconds") not in kept:
            yield forbidden_field(
                "spec.tolerations",
                "existing toleration can not be modified except its tolerationSeconds",
            )
            return
    if after != before:
        yield from check_tolerations(after, "spec.tolerations", scope)


def _without(document: Document, *keys: str) -> Document:
    return {key: value for key, value in document.items() if key not in keys}


def _check_removed_gates(new: Document, old: Document) -> Iterator[FieldError]:
    before = {gate.get("name") for gate in old.get("schedulingGates") or ()}
    for index, gate in enumerate(new.get("schedulingGates") or ()):
        if gate.get("name") not in before:
            yield forbidden_field(
                f"spec.schedulingGates[{index}].name",
                "only deletion is allowed, but found new scheduling gate "
                f"'{gate.get('name')}'",
            )


def _check_rest_unchanged(new: Document, old: Document) -> Iterator[FieldError]:
    masked = dict(new)
    for name in ("containers", "initContainers"):
        if name in new:
            masked[name] = [
                {**container, "image": before.get("image")}
                for container, before in zip(
                    new[name], old.get(name) or (), strict=True
                )
            ]
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _restore(masked, old, key)
    grace = "terminationGracePeriodSeconds"
    if (old.get(grace) or 0) < 0 and masked.get(grace) == 1:
        masked[grace] = old[grace]
    if old.get("schedulingGates"):
        yield from _check_gated_changes(masked, old)
    if masked != old:
        yield forbidden_field(
            "spec",
            f"pod updates may not change fields other than {','.join(_UPDATABLE)}\n"
            f"{show_differences(old, masked)}",
        )


def _restore(masked: Document, old: Document, key: str) -> None:
    if key in old:
        masked[key] = old[key]
    else:
        masked.pop(key, None)


def _check_gated_changes(masked: Document, old: Document) -> Iterator[FieldError]:
    """Allow a gated Pod to get stricter about its node; undo what was allowed."""
    before, after = old.get("nodeSelector") or {}, masked.get("nodeSelector") or {}
    if not before.items() <= after.items():
        yield invalid(
            "spec.nodeSelector",
            after,
            "only additions to spec.nodeSelector are allowed (no mutations or "
            "deletions)",
        )
    _restore(masked, old, "nodeSelector")
    old_affinity, new_affinity = old.get("affinity") or {}, masked.get("affinity") or {}
    yield from _check_node_affinity_change(
        new_affinity.get("nodeAffinity") or {}, old_affinity.get("nodeAffinity") or {}
    )
    merged = _without(new_affinity, "nodeAffinity")
    if "nodeAffinity" in old_affinity:
        merged["nodeAffinity"] = old_affinity["nodeAffinity"]
    if merged == old_affinity:
        _restore(masked, old, "affinity")
    else:
        masked["affinity"] = merged


def _check_node_affinity_change(new: Document, old: Document) -> Iterator[FieldError]:
    field = f"spec.affinity.nodeAffinity.{_REQUIRED_AFFINITY}.nodeSelectorTerms"
    before = (old.get(_REQUIRED_AFFINITY) or {}).get("nodeSelectorTerms") or []
    after = (new.get(_REQUIRED_AFFINITY) or {}).get("nodeSelectorTerms") or []
    if before and len(before) != len(after):
        yield invalid(
            field,
            after,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        )
        return
    for index, (old_term, new_term) in enumerate(zip(before, after, strict=False)):
        if not _only_adds(new_term, old_term):
            yield invalid(
                f"{field}[{index}]",
                new_term,
                "only additions are allowed (no mutations or deletions)",
            )


def _only_adds(new: Document, old: Document) -> bool:
    keys = ("matchExpressions", "matchFields")
    if not any(old.get(key) for key in keys):
        return not any(new.get(key) for key in keys)
    return all(
        (new.get(key) or [])[: len(old.get(key) or [])] == (old.get(key) or [])
        for key in keys
    )


# --- status ------------------------------------------------------------------------


def validate_pod_status_update(
    new: Document, old: Document, _gates: FeatureGates
) -> Iterator[FieldError]:
    """Check a changed status."""
    yield from validate_object_meta_update(
        new.get("metadata") or {}, old.get("metadata") or {}
    )
    yield from _check_annotation_update(new, old)
    after, before = new.get("status") or {}, old.get("status") or {}
    spec = old.get("spec") or {}
    yield from _check_conditions(after.get("conditions") or ())
    if (new.get("spec") or {}).get("nodeName") != spec.get("nodeName"):
        yield forbidden_field("status.nodeName", "may not be changed directly")
    nominated = after.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        where = "status.nominatedNodeName"
        yield from check_text(where, nominated, check_dns1123_subdomain)
        if spec.get("nodeName"):
            yield forbidden_field(
                where, "may not be set on pods that are already bound to a node"
            )
    if (after.get("observedGeneration") or 0) < 0:
        yield invalid(
            "status.observedGeneration",
            after["observedGeneration"],
            "must be a non-negative integer",
        )
    if before.get("qosClass"):
        yield from check_immutable(
            "status.qosClass", after.get("qosClass"), before["qosClass"]
        )
    for key, containers in (
        ("containerStatuses", spec.get("containers") or ()),
        ("initContainerStatuses", spec.get("initContainers") or ()),
        ("ephemeralContainerStatuses", None),
    ):
        yield from _check_transitions(after, before, key, spec, containers)
    yield from _check_addresses(after, "podIP", must_match=False)
    yield from _check_addresses(after, "hostIP", must_match=True)
    for key in (
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ):
        yield from _check_users(after.get(key) or (), f"status.{key}")


def _check_conditions(conditions: Sequence[Document]) -> Iterator[FieldError]:
    for index, condition in enumerate(conditions):
        where = f"status.conditions[{index}]"
        generation = condition.get("observedGeneration") or 0
        if generation < 0:
            yield invalid(
                f"{where}.observedGeneration",
                generation,
                "must be a non-negative integer",
            )
        if condition.get("type") not in _SYSTEM_CONDITIONS:
            yield from check_text(
                f"{where}.Type", condition.get("type") or "", check_qualified_name
            )


def _check_transitions(
    new: Document,
    old: Document,
    key: str,
    spec: Document,
    containers: Sequence[Document] | None,
) -> Iterator[FieldError]:
    """Refuse that a container which ended for good is said to run again."""
    if containers is not None and could_restart_all(spec):
        return
    after = {status.get("name"): status for status in new.get(key) or ()}
    by_name = {container.get("name"): container for container in containers or ()}
    for index, status in enumerate(old.get(key) or ()):
        ended = (status.get("state") or {}).get("terminated")
        now = after.get(status.get("name"))
        if ended is None or now is None:
            continue
        if (now.get("state") or {}).get("terminated") is not None:
            continue
        container = by_name.get(status.get("name"))
        exit_code = ended.get("exitCode") or 0
        if container is None or not should_restart(container, spec, exit_code):
            yield forbidden_field(
                f"status.{key}[{index}].state",
                "may not be transitioned to non-terminated state",
            )


def could_restart_all(spec: Document) -> bool:
    """Say whether a rule of some container may restart all of them."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return any(
        rule.get("action") == "RestartAllContainers"
        for container in containers
        for rule in container.get("restartPolicyRules") or ()
    )


def should_restart(container: Document, spec: Document, exit_code: int) -> bool:
    """Say whether a container that ended so is started again.

    The first matching rule decides, then the container's policy, then the Pod's.
    """
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if listed == (codes.get("operator") == "In"):
            return True
    policy = container.get("restartPolicy") or spec.get("restartPolicy") or "Always"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _check_addresses(
    status: Document, key: str, *, must_match: bool
) -> Iterator[FieldError]:
    field = f"status.{key}s"
    entries = status.get(f"{key}s") or []
    addresses = [entry.get("ip") or "" for entry in entries]
    if must_match and addresses and addresses[0] != (status.get(key) or ""):
        yield invalid(f"{field}[0].ip", addresses[0], f"must be equal to `{key}`")
    faults: list[FieldError] = []
    for index, address in enumerate(addresses):
        faults += check_text(f"{field}[{index}]", address, check_ip)
    yield from faults
    if not faults and len(addresses) > 1:
        families = {ipaddress.ip_address(address).version for address in addresses}
        if len(families) != len(addresses):
            yield invalid(
                field, entries, "may specify no more than one IP for each IP family"
            )


def _check_users(statuses: Sequence[Document], field: str) -> Iterator[FieldError]:
    for index, status in enumerate(statuses):
        user = (status.get("user") or {}).get("linux") or {}
        where = f"{field}[{index}].user.linux"
        for key in ("uid", "gid"):
            value = user.get(key)
            if value is not None:
                for text in check_user_id(value):
                    yield invalid(f"{where}.{key}", value, text)
        for number, group in enumerate(user.get("supplementalGroups") or ()):
            for text in check_user_id(group):
                yield invalid(f"{where}.supplementalGroups[{number}]", group, text)


# --- subresources ------------------------------------------------------------------


def validate_ephemeral_containers_update(
    new: Document, old: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check a Pod with more ephemeral containers; those it has must stay."""
    if MIRROR_ANNOTATION in _annotations(old):
        yield forbidden_field("", "static pods do not support ephemeral containers")
        return
    yield from validate_object_meta_update(
        new.get("metadata") or {}, old.get("metadata") or {}
    )
    yield from _check_metadata_and_spec(new, gates)
    yield from _check_annotation_update(new, old)
    field = "spec.ephemeralContainers"
    after = _by_name((new.get("spec") or {}).get("ephemeralContainers") or ())
    for before in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = before.get("name") or ""
        if name not in after:
            yield forbidden_field(
                field,
                f"existing ephemeral containers {quote(name)} may not be removed\n",
            )
        elif after[name] != before:
            yield forbidden_field(
                field,
                f"existing ephemeral containers {quote(name)} may not be changed\n"
                f"{show_differences(before, after[name])}",
            )


def _by_name(containers: Sequence[Document]) -> Mapping[str, Document]:
    return {container.get("name") or "": container for container in containers}


def validate_binding(binding: Document) -> tuple[FieldError, ...]:
    """Check a Binding, which gives a Pod to a node."""
    target = binding.get("target") or {}
    faults = []
    kind = target.get("kind") or ""
    if kind and kind != "Node":
        faults.append(not_supported("target.kind", kind, ("Node", "<empty>")))
    if not target.get("name"):
        faults.append(required("target.name"))
    return tuple(faults)
