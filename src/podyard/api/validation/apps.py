"""Rules of Deployments, ReplicaSets, StatefulSets, DaemonSets and their revisions.

Source: ``pkg/apis/apps/validation`` (v1.36).
"""

from collections.abc import Iterator
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
from podyard.api.labels import SelectorError, selector_from_object
from podyard.api.syntax import check_percent
from podyard.api.validation.claims import check_claim_spec
from podyard.api.validation.faults import (
    NEGATIVE,
    check_immutable,
    check_not_negative,
    check_text,
)
from podyard.api.validation.object_meta import check_label_selector
from podyard.api.validation.pods import check_pod_template

_NO_MATCH: Final = "`selector` does not match template `labels`"
_ROLLING: Final = "RollingUpdate"
_STATEFUL_UPDATABLE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_RETENTION: Final = ("Delete", "Retain")


def _spec(document: Document) -> Document:
    found: Document = document.get("spec") or {}
    return found


def check_selector(spec: Document, empty_text: str) -> Iterator[FieldError]:
    """Check that there is a selector, that it is sound, and not empty."""
    selector = spec.get("selector")
    if selector is None:
        yield required("spec.selector")
        return
    yield from check_label_selector(selector, "spec.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid("spec.selector", selector, empty_text)


def check_template_labels(spec: Document, field: str) -> Iterator[FieldError]:
    """Check that the selector selects the Pods of the template."""
    selector = spec.get("selector")
    if not selector:
        return
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        matches = selector_from_object(selector).matches(labels)
    except SelectorError:
        yield invalid("spec.selector", selector, "invalid label selector")
        return
    if not matches:
        yield invalid(f"{field}.template.metadata.labels", labels, _NO_MATCH)


def _check_template(
    spec: Document, kind: str, gates: FeatureGates
) -> Iterator[FieldError]:
    yield from check_template_labels(spec, "spec")
    template = spec.get("template") or {}
    yield from check_pod_template(template, "spec.template", gates)
    pod_spec = template.get("spec") or {}
    policy = pod_spec.get("restartPolicy") or ""
    if policy != "Always":
        where = "spec.template.spec.restartPolicy"
        yield not_supported(where, policy, ("Always",))
    if pod_spec.get("activeDeadlineSeconds") is not None:
        yield forbidden_field(
            "spec.template.spec.activeDeadlineSeconds",
            f"activeDeadlineSeconds in {kind} is not Supported",
        )


def check_amount(field: str, value: int | str | None) -> Iterator[FieldError]:
    """Check a number of Pods, or a share of them in percent."""
    if isinstance(value, str):
        yield from check_text(field, value, check_percent)
    elif value is not None and value < 0:
        yield invalid(field, value, NEGATIVE)


def check_at_most_all(field: str, value: int | str | None) -> Iterator[FieldError]:
    """Check that a share is not more than the whole."""
    if isinstance(value, str) and not check_percent(value) and int(value[:-1]) > 100:
        yield invalid(field, value, "must not be greater than 100%")


def _is_zero(value: int | str | None) -> bool:
    return value in {None, 0, "0%"}


# --- Deployments and ReplicaSets -----------------------------------------------------


def check_deployment(deployment: Document, gates: FeatureGates) -> Iterator[FieldError]:
    """Check the spec of a Deployment."""
    spec = _spec(deployment)
    yield from check_not_negative("spec.replicas", spec.get("replicas"))
    yield from check_selector(spec, "empty selector is invalid for deployment")
    yield from _check_template(spec, "ReplicaSet", gates)
    yield from _check_deployment_strategy(spec.get("strategy") or {}, "spec.strategy")
    for key in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        yield from check_not_negative(f"spec.{key}", spec.get(key))
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds")
    if deadline is not None and deadline <= (ready or 0):
        yield invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        )


def _check_deployment_strategy(strategy: Document, field: str) -> Iterator[FieldError]:
    type_, update = strategy.get("type") or "", strategy.get("rollingUpdate")
    where = f"{field}.rollingUpdate"
    if type_ == "Recreate":
        if update is not None:
            yield forbidden_field(
                where, "may not be specified when strategy `type` is 'Recreate'"
            )
    elif type_ != _ROLLING:
        yield not_supported(f"{field}.type", type_, ("Recreate", _ROLLING))
    elif update is None:
        yield required(where, "this should be defaulted and never be nil")
    else:
        missing, surge = update.get("maxUnavailable"), update.get("maxSurge")
        yield from check_amount(f"{where}.maxUnavailable", missing)
        yield from check_amount(f"{where}.maxSurge", surge)
        if _is_zero(missing) and _is_zero(surge):
            yield invalid(
                f"{where}.maxUnavailable",
                missing or 0,
                "may not be 0 when `maxSurge` is 0",
            )
        yield from check_at_most_all(f"{where}.maxUnavailable", missing)


def check_replica_set(
    replica_set: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check the spec of a ReplicaSet."""
    spec = _spec(replica_set)
    yield from check_not_negative("spec.replicas", spec.get("replicas"))
    yield from check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    yield from check_selector(spec, "empty selector is invalid for deployment")
    yield from _check_template(spec, "ReplicaSet", gates)


def check_same_selector(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that the selector stays."""
    yield from check_immutable(
        "spec.selector", _spec(new).get("selector"), _spec(old).get("selector")
    )


# --- DaemonSets -----------------------------------------------------------------------


def check_daemon_set(daemon_set: Document, gates: FeatureGates) -> Iterator[FieldError]:
    """Check the spec of a DaemonSet."""
    spec = _spec(daemon_set)
    yield from check_selector(spec, "empty selector is invalid for daemonset")
    yield from _check_template(spec, "DaemonSet", gates)
    yield from check_not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    yield from _check_daemon_strategy(
        spec.get("updateStrategy") or {}, "spec.updateStrategy"
    )
    yield from check_not_negative(
        "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit")
    )


def _check_daemon_strategy(strategy: Document, field: str) -> Iterator[FieldError]:
    type_, update = strategy.get("type") or "", strategy.get("rollingUpdate")
    where = f"{field}.rollingUpdate"
    if type_ == "OnDelete":
        return
    if type_ != _ROLLING:
        yield not_supported(field, type_, (_ROLLING, "OnDelete"))
    elif update is None:
        yield required(where)
    else:
        missing, surge = update.get("maxUnavailable"), update.get("maxSurge")
        yield from check_amount(f"{where}.maxUnavailable", missing)
        yield from check_amount(f"{where}.maxSurge", surge)
        yield from check_at_most_all(f"{where}.maxUnavailable", missing)
        yield from check_at_most_all(f"{where}.maxSurge", surge)
        if not _is_zero(missing) and not _is_zero(surge):
            yield invalid(
                f"{where}.maxSurge",
                surge,
                "may not be set when maxUnavailable is non-zero",
            )
        if _is_zero(missing) and _is_zero(surge):
            yield required(f"{where}.maxUnavailable", "cannot be 0 when maxSurge is 0")


# --- StatefulSets ---------------------------------------------------------------------


def check_stateful_set(
    stateful_set: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check the spec of a StatefulSet."""
    spec = _spec(stateful_set)
    policy = spec.get("podManagementPolicy") or ""
    if not policy:
        yield required("spec.podManagementPolicy")
    elif policy not in {"OrderedReady", "Parallel"}:
        yield invalid(
            "spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"
        )
    yield from _check_stateful_strategy(
        spec.get("updateStrategy") or {}, "spec.updateStrategy"
    )
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for key in ("whenDeleted", "whenScaled"):
        value = retention.get(key)
        if value is not None and value not in _RETENTION:
            where = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            yield not_supported(where, value, _RETENTION)
    for key in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        yield from check_not_negative(f"spec.{key}", spec.get(key))
    yield from check_not_negative(
        "spec.ordinals.start", (spec.get("ordinals") or {}).get("start")
    )
    yield from check_selector(spec, "empty selector is invalid for statefulset")
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        where = f"spec.volumeClaimTemplates[{index}].spec"
        yield from check_claim_spec(claim.get("spec") or {}, where)
    yield from _check_stateful_template(spec, gates)


def _check_stateful_template(
    spec: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    """Check the template as its Pods will be: with a volume for every claim."""
    template = spec.get("template") or {}
    pod_spec = template.get("spec") or {}
    claims = [
        (claim.get("metadata") or {}).get("name") or ""
        for claim in spec.get("volumeClaimTemplates") or ()
    ]
    volumes = [
        volume
        for volume in pod_spec.get("volumes") or ()
        if volume.get("name") not in claims
    ]
    volumes += [
        {"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims
    ]
    filled = {**template, "spec": {**pod_spec, "volumes": volumes}}
    yield from _check_template({**spec, "template": filled}, "StatefulSet", gates)


def _check_stateful_strategy(strategy: Document, field: str) -> Iterator[FieldError]:
    type_, update = strategy.get("type") or "", strategy.get("rollingUpdate")
    where = f"{field}.rollingUpdate"
    if not type_:
        yield required(field)
    elif type_ == "OnDelete":
        if update is not None:
            yield invalid(
                where, update, "only allowed for updateStrategy 'RollingUpdate'"
            )
    elif type_ != _ROLLING:
        yield invalid(field, strategy, "must be 'RollingUpdate' or 'OnDelete'")
    elif update is not None:
        yield from check_not_negative(f"{where}.partition", update.get("partition"))
        missing = update.get("maxUnavailable")
        if missing is not None:
            yield from check_amount(f"{where}.maxUnavailable", missing)
            yield from check_at_most_all(f"{where}.maxUnavailable", missing)
            if _is_zero(missing):
                yield invalid(f"{where}.maxUnavailable", missing, "cannot be 0")


def check_stateful_set_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that nothing changed but what may."""
    after, before = _spec(new), _spec(old)
    fixed = (after.keys() | before.keys()) - set(_STATEFUL_UPDATABLE)
    if any(after.get(key) != before.get(key) for key in fixed):
        yield forbidden_field(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', "
            "'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
            "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
            "forbidden",
        )


# --- ControllerRevisions and statuses -------------------------------------------------


def check_controller_revision(revision: Document) -> Iterator[FieldError]:
    """Check that there is data and a number."""
    if revision.get("data") is None:
        yield required("data", "data is mandatory")
    yield from check_not_negative("revision", revision.get("revision"))


def check_controller_revision_update(
    new: Document, old: Document
) -> Iterator[FieldError]:
    """Check that the data stays."""
    yield from check_immutable("data", new.get("data"), old.get("data"))


def check_replica_counts(document: Document) -> Iterator[FieldError]:
    """Check the counts of a workload's status."""
    status = document.get("status") or {}
    for key, value in status.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield from check_not_negative(f"status.{key}", value)
    replicas = status.get("replicas") or 0
    if "replicas" not in status and "desiredNumberScheduled" in status:
        return
    for key in ("readyReplicas", "availableReplicas", "fullyLabeledReplicas"):
        if (status.get(key) or 0) > replicas:
            yield invalid(
                f"status.{key}", status[key], "cannot be greater than status.replicas"
            )
    ready, available = status.get("readyReplicas"), status.get("availableReplicas")
    if (available or 0) > (ready or 0):
        yield invalid(
            "status.availableReplicas",
            available,
            "cannot be greater than readyReplicas",
        )
