"""Validation: whether an object keeps the rules of its kind.

Every fault is found and named; nothing is changed. Documents come typed as their
schema says, with quantities in canonical form and defaults filled in.

Source: ``pkg/apis/*/validation`` (v1.36); every rule names its file.
"""

from collections.abc import Callable, Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError
from podyard.api.feature_gates import DEFAULT_GATES, FeatureGates
from podyard.api.scheme import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    EVENT_V1,
    JOB,
    LEASE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    POD_TEMPLATE,
    PRIORITY_CLASS,
    REPLICA_SET,
    RUNTIME_CLASS,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    STORAGE_CLASS,
    Kind,
)
from podyard.api.syntax import (
    check_dns1035_label,
    check_dns1123_label,
    check_dns1123_subdomain,
)
from podyard.api.validation import (
    apps,
    batch,
    claims,
    coordination,
    core,
    discovery,
    events,
    node,
    object_meta,
    pods,
    policy,
    priority_classes,
    services,
    storage,
)
from podyard.api.validation.scope import Scope
from podyard.api.validation.warnings import object_warnings

__all__ = [
    "object_warnings",
    "validate_binding",
    "validate_create",
    "validate_ephemeral_containers_update",
    "validate_object_meta",
    "validate_status_update",
    "validate_update",
]

_Check = Callable[[Document], Iterator[FieldError]]
_GatedCheck = Callable[[Document, FeatureGates], Iterator[FieldError]]
_UpdateCheck = Callable[[Document, Document], Iterator[FieldError]]

_CHECKS: Final[dict[Kind, _Check]] = {
    NAMESPACE: core.check_namespace,
    NODE: core.check_node,
    SECRET: core.check_secret,
    CONFIG_MAP: core.check_config_map,
    SERVICE: services.check_service,
    ENDPOINTS: core.check_endpoints,
    ENDPOINT_SLICE: discovery.check_endpoint_slice,
    EVENT: events.check_event,
    EVENT_V1: events.check_event_v1,
    LEASE: coordination.check_lease,
    CONTROLLER_REVISION: apps.check_controller_revision,
    POD_DISRUPTION_BUDGET: policy.check_budget,
    PRIORITY_CLASS: priority_classes.check_priority_class,
    PERSISTENT_VOLUME: storage.check_volume,
    PERSISTENT_VOLUME_CLAIM: claims.check_claim,
    STORAGE_CLASS: storage.check_storage_class,
}
_GATED_CHECKS: Final[dict[Kind, _GatedCheck]] = {
    POD_TEMPLATE: lambda document, gates: pods.check_pod_template(
        document.get("template") or {}, "template", gates
    ),
    RUNTIME_CLASS: lambda document, gates: node.check_runtime_class(
        document, Scope(gates=gates)
    ),
    DEPLOYMENT: apps.check_deployment,
    REPLICA_SET: apps.check_replica_set,
    STATEFUL_SET: apps.check_stateful_set,
    DAEMON_SET: apps.check_daemon_set,
    JOB: batch.check_job,
    CRON_JOB: batch.check_cron_job,
}
_UPDATE_CHECKS: Final[dict[Kind, _UpdateCheck]] = {
    NODE: core.check_node_update,
    SECRET: core.check_secret_update,
    CONFIG_MAP: core.check_config_map_update,
    SERVICE: services.check_service_update,
    ENDPOINT_SLICE: discovery.check_endpoint_slice_update,
    EVENT_V1: events.check_event_v1_update,
    RUNTIME_CLASS: node.check_runtime_class_update,
    DEPLOYMENT: apps.check_same_selector,
    REPLICA_SET: apps.check_same_selector,
    DAEMON_SET: apps.check_same_selector,
    STATEFUL_SET: apps.check_stateful_set_update,
    JOB: batch.check_job_update,
    CONTROLLER_REVISION: apps.check_controller_revision_update,
    PRIORITY_CLASS: priority_classes.check_priority_class_update,
    PERSISTENT_VOLUME: storage.check_volume_update,
    PERSISTENT_VOLUME_CLAIM: claims.check_claim_update,
    STORAGE_CLASS: storage.check_storage_class_update,
}
_STATUS_CHECKS: Final[dict[Kind, _Check]] = {
    NODE: core.check_node,
    SERVICE: services.check_service_status,
    DEPLOYMENT: apps.check_replica_counts,
    REPLICA_SET: apps.check_replica_counts,
    STATEFUL_SET: apps.check_replica_counts,
    DAEMON_SET: apps.check_replica_counts,
    JOB: batch.check_job_status,
    POD_DISRUPTION_BUDGET: policy.check_budget_status,
    PERSISTENT_VOLUME_CLAIM: claims.check_claim_status,
}
_LABEL_NAMED: Final = frozenset({NAMESPACE, STATEFUL_SET})


def _name_check(kind: Kind, gates: FeatureGates) -> object_meta.NameCheck:
    if kind is SERVICE:
        relaxed = gates.enabled("RelaxedServiceNameValidation")
        return check_dns1123_label if relaxed else check_dns1035_label
    return check_dns1123_label if kind in _LABEL_NAMED else check_dns1123_subdomain


def validate_create(
    kind: Kind, document: Document, gates: FeatureGates = DEFAULT_GATES
) -> tuple[FieldError, ...]:
    """Return the faults of a new object; none means it may be stored.

    Args:
        kind: what the document is.
        document: named, defaulted and, for Jobs, with its generated selector.
        gates: the features that are on.
    """
    return tuple(_check_new(kind, document, gates))


def _check_new(
    kind: Kind, document: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    if kind is POD:
        yield from pods.validate_pod(document, gates)
        return
    yield from object_meta.validate_object_meta(
        document.get("metadata") or {},
        namespaced=kind.namespaced,
        check_name=_name_check(kind, gates),
    )
    yield from _check_body(kind, document, gates)


def _check_body(
    kind: Kind, document: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    if kind in _CHECKS:
        yield from _CHECKS[kind](document)
    elif kind in _GATED_CHECKS:
        yield from _GATED_CHECKS[kind](document, gates)


def validate_update(
    kind: Kind, new: Document, old: Document, gates: FeatureGates = DEFAULT_GATES
) -> tuple[FieldError, ...]:
    """Return the faults of a changed object, and of the change itself.

    Args:
        kind: what the documents are.
        new: what is wanted, defaulted.
        old: what is stored.
        gates: the features that are on.
    """
    return tuple(_check_changed(kind, new, old, gates))


def _check_changed(
    kind: Kind, new: Document, old: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    if kind is POD:
        yield from pods.validate_pod_update(new, old, gates)
        return
    yield from object_meta.validate_object_meta_update(
        new.get("metadata") or {}, old.get("metadata") or {}
    )
    if kind in _UPDATE_CHECKS:
        yield from _UPDATE_CHECKS[kind](new, old)
    if kind is ENDPOINTS and new.get("subsets") == old.get("subsets"):
        # What an older server let in may stay.
        return
    yield from _check_body(kind, new, gates)


def validate_status_update(
    kind: Kind, new: Document, old: Document, gates: FeatureGates = DEFAULT_GATES
) -> tuple[FieldError, ...]:
    """Return the faults of a changed status."""
    return tuple(_check_status(kind, new, old, gates))


def _check_status(
    kind: Kind, new: Document, old: Document, gates: FeatureGates
) -> Iterator[FieldError]:
    if kind is POD:
        yield from pods.validate_pod_status_update(new, old, gates)
        return
    yield from object_meta.validate_object_meta_update(
        new.get("metadata") or {}, old.get("metadata") or {}
    )
    if kind is NAMESPACE:
        yield from core.check_namespace_status_update(new, old)
    elif kind in _STATUS_CHECKS:
        yield from _STATUS_CHECKS[kind](new)
    if kind is NODE:
        yield from core.check_node_update(new, old)


def validate_ephemeral_containers_update(
    new: Document, old: Document, gates: FeatureGates = DEFAULT_GATES
) -> tuple[FieldError, ...]:
    """Return the faults of a Pod with more ephemeral containers."""
    return tuple(pods.validate_ephemeral_containers_update(new, old, gates))


def validate_binding(binding: Document) -> tuple[FieldError, ...]:
    """Return the faults of a Binding, which gives a Pod to a node."""
    return pods.validate_binding(binding)


def validate_object_meta(
    metadata: Document, *, namespaced: bool, field: str = "metadata"
) -> tuple[FieldError, ...]:
    """Return the faults of the metadata of an object named by a DNS subdomain."""
    return tuple(
        object_meta.validate_object_meta(
            metadata,
            namespaced=namespaced,
            check_name=check_dns1123_subdomain,
            field=field,
        )
    )
