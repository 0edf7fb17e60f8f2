"""Defaults: what the API fills in where a document says nothing.

Source: the ``defaults.go`` files of ``pkg/apis`` (v1.36) and the API reference.
"""

from collections.abc import Callable
from typing import Final

from podyard.api.defaults import apps, batch, core, discovery, scheduling, storage
from podyard.api.defaults.pod_spec import default_pod_spec
from podyard.api.documents import Document
from podyard.api.pod_templates import template_of
from podyard.api.scheme import (
    CONFIG_MAP,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    JOB,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PRIORITY_CLASS,
    REPLICA_SET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    STORAGE_CLASS,
    Kind,
)

_DEFAULTS: Final[dict[Kind, Callable[[Document], None]]] = {
    POD: core.default_pod,
    SERVICE: core.default_service,
    SECRET: core.default_secret,
    CONFIG_MAP: core.default_config_map,
    NAMESPACE: core.default_namespace,
    NODE: core.default_node,
    ENDPOINTS: core.default_endpoints,
    ENDPOINT_SLICE: discovery.default_endpoint_slice,
    DEPLOYMENT: apps.default_deployment,
    REPLICA_SET: apps.default_replica_set,
    STATEFUL_SET: apps.default_stateful_set,
    DAEMON_SET: apps.default_daemon_set,
    JOB: batch.default_job,
    CRON_JOB: batch.default_cron_job,
    PRIORITY_CLASS: scheduling.default_priority_class,
    PERSISTENT_VOLUME: storage.default_volume,
    PERSISTENT_VOLUME_CLAIM: storage.default_claim,
    STORAGE_CLASS: storage.default_storage_class,
}

_PREPARATIONS: Final[dict[Kind, Callable[[Document], None]]] = {
    NAMESPACE: core.prepare_namespace,
    POD: core.prepare_pod,
    JOB: lambda job: batch.prepare_job(job, job["metadata"]["uid"]),
}


def default_object(kind: Kind, document: Document) -> None:
    """Fill in the defaults of one object, in place; doing it twice changes nothing.

    Leases, Events, RuntimeClasses, ServiceAccounts, ControllerRevisions and
    PodDisruptionBudgets have none.

    Args:
        kind: what the document is.
        document: typed as its schema says, quantities in canonical form.
    """
    template = template_of(kind, document)
    if template is not None:
        template.setdefault("metadata", {})
        default_pod_spec(template.setdefault("spec", {}))
    default = _DEFAULTS.get(kind)
    if default is not None:
        default(document)


def prepare_object(kind: Kind, document: Document) -> None:
    """Set what the server alone decides of a new object, in place.

    Needs ``metadata.uid``; runs once, after admission has changed the object and
    before it is validated.
    """
    prepare = _PREPARATIONS.get(kind)
    if prepare is not None:
        prepare(document)
