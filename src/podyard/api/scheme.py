"""Which kinds there are: group, version, kind, resource and their names.

Source: the API reference of Kubernetes v1.36; short names and categories as
``kubectl api-resources`` prints them.
"""

from typing import Final

from podyard.lib.values import dataclass

#: Verbs of an ordinary, stored kind, in discovery's order.
ALL_VERBS: Final = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One stored kind.

    Attributes:
        group: the API group, empty for core.
        version: ``v1`` …
        kind: ``Pod``
        resource: the plural used in paths, ``pods``.
        namespaced: whether it lives in a namespace.
        short_names: kubectl's abbreviations.
        categories: ``all`` makes ``kubectl get all`` list it.
        storage: the ``group/resource`` part of the store key; two kinds that are
            views of one store (Event) share it.
    """

    group: str
    version: str
    kind: str
    resource: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    storage: str = ""

    @property
    def singular(self) -> str:
        """The lower-case singular kubectl accepts."""
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """``PodList``."""
        return f"{self.kind}List"

    @property
    def qualified_resource(self) -> str:
        """``pods`` or ``deployments.apps``, as messages show it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def storage_prefix(self) -> str:
        """The key prefix in the store, ending in a slash."""
        where = self.storage or f"{self.group or 'core'}/{self.resource}"
        return f"/registry/{where}/"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of the collection or object."""
        path = f"/apis/{self.group}/{self.version}" if self.group else "/api/v1"
        if self.namespaced and namespace:
            path += f"/namespaces/{namespace}"
        path += f"/{self.resource}"
        if name:
            path += f"/{name}"
        return f"{path}/{subresource}" if subresource else path

    def key(self, namespace: str, name: str) -> str:
        """Return the store key of one object."""
        if self.namespaced:
            return f"{self.storage_prefix}{namespace}/{name}"
        return f"{self.storage_prefix}{name}"


NAMESPACE: Final = Kind(
    "", "v1", "Namespace", "namespaces", namespaced=False, short_names=("ns",)
)
POD: Final = Kind("", "v1", "Pod", "pods", short_names=("po",), categories=("all",))
POD_TEMPLATE: Final = Kind("", "v1", "PodTemplate", "podtemplates")
NODE: Final = Kind("", "v1", "Node", "nodes", namespaced=False, short_names=("no",))
SECRET: Final = Kind("", "v1", "Secret", "secrets")
CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
SERVICE_ACCOUNT: Final = Kind(
    "", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",)
)
SERVICE: Final = Kind(
    "", "v1", "Service", "services", short_names=("svc",), categories=("all",)
)
ENDPOINTS: Final = Kind("", "v1", "Endpoints", "endpoints", short_names=("ep",))
ENDPOINT_SLICE: Final = Kind(
    "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"
)
EVENT: Final = Kind("", "v1", "Event", "events", short_names=("ev",))
EVENT_V1: Final = Kind(
    "events.k8s.io", "v1", "Event", "events", short_names=("ev",), storage="core/events"
)
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")
RUNTIME_CLASS: Final = Kind(
    "node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False
)
DEPLOYMENT: Final = Kind(
    "apps",
    "v1",
    "Deployment",
    "deployments",
    short_names=("deploy",),
    categories=("all",),
)
REPLICA_SET: Final = Kind(
    "apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=("all",)
)
STATEFUL_SET: Final = Kind(
    "apps",
    "v1",
    "StatefulSet",
    "statefulsets",
    short_names=("sts",),
    categories=("all",),
)
DAEMON_SET: Final = Kind(
    "apps", "v1", "DaemonSet", "daemonsets", short_names=("ds",), categories=("all",)
)
CONTROLLER_REVISION: Final = Kind(
    "apps", "v1", "ControllerRevision", "controllerrevisions"
)
JOB: Final = Kind("batch", "v1", "Job", "jobs", categories=("all",))
CRON_JOB: Final = Kind(
    "batch", "v1", "CronJob", "cronjobs", short_names=("cj",), categories=("all",)
)
POD_DISRUPTION_BUDGET: Final = Kind(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short_names=("pdb",)
)
PRIORITY_CLASS: Final = Kind(
    "scheduling.k8s.io",
    "v1",
    "PriorityClass",
    "priorityclasses",
    namespaced=False,
    short_names=("pc",),
)
PERSISTENT_VOLUME: Final = Kind(
    "",
    "v1",
    "PersistentVolume",
    "persistentvolumes",
    namespaced=False,
    short_names=("pv",),
)
PERSISTENT_VOLUME_CLAIM: Final = Kind(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",)
)
STORAGE_CLASS: Final = Kind(
    "storage.k8s.io",
    "v1",
    "StorageClass",
    "storageclasses",
    namespaced=False,
    short_names=("sc",),
)
#: There are none, and none can be made. kubectl lists them before it says that it
#: does not know a kind, or that a kind has no server-side field validation.
CUSTOM_RESOURCE_DEFINITION: Final = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)

#: Every stored kind.
KINDS: Final = (
    NAMESPACE,
    POD,
    POD_TEMPLATE,
    NODE,
    SECRET,
    CONFIG_MAP,
    SERVICE_ACCOUNT,
    SERVICE,
    ENDPOINTS,
    EVENT,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    DAEMON_SET,
    CONTROLLER_REVISION,
    JOB,
    CRON_JOB,
    LEASE,
    ENDPOINT_SLICE,
    EVENT_V1,
    RUNTIME_CLASS,
    POD_DISRUPTION_BUDGET,
    PRIORITY_CLASS,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
)


def find_kind_by_name(api_version: str, kind: str) -> Kind | None:
    """Return the kind behind a document's ``apiVersion`` and ``kind``, if any."""
    return _BY_NAME.get((api_version, kind))


_BY_NAME = {(kind.api_version, kind.kind): kind for kind in KINDS}
