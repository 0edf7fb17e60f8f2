"""Frozen views of core/v1, as much as decisions read.

A view is made once, at the door (``Pod.of(document)``), and keeps the document it
came from in ``document``, so that a rare field needs no view of its own. Values
are as the API spells them; quantities stay strings (``api.quantity`` reads them).
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from typing import TypeVar

from podyard.api.documents import Document
from podyard.lib.values import dataclass

_T = TypeVar("_T")


def parse_time(text: str | None) -> datetime | None:
    """Return an RFC 3339 time as an aware datetime, or ``None`` where absent."""
    if not text:
        return None
    return datetime.fromisoformat(text)


def format_time(at: datetime) -> str:
    """Return a time as metav1.Time shows it: UTC, whole seconds, ``Z``."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(at: datetime) -> str:
    """Return a time as metav1.MicroTime shows it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _many(of: Callable[[Document], _T], items: list[Document] | None) -> tuple[_T, ...]:
    return tuple(of(item) for item in items or ())


def _maybe(of: Callable[[Document], _T], item: Document | None) -> _T | None:
    return None if item is None else of(item)


@dataclass(frozen=True, slots=True)
class OwnerReference:
    """Who this object belongs to."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False

    @classmethod
    def of(cls, d: Document) -> "OwnerReference":
        """Read one entry of metadata.ownerReferences."""
        return cls(
            d.get("apiVersion", ""),
            d.get("kind", ""),
            d.get("name", ""),
            d.get("uid", ""),
            bool(d.get("controller")),
        )


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """``metadata``."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_s: int | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @classmethod
    def of(cls, d: Document) -> "ObjectMeta":
        """Read a document's metadata."""
        return cls(
            name=d.get("name", ""),
            namespace=d.get("namespace", ""),
            uid=d.get("uid", ""),
            resource_version=d.get("resourceVersion", ""),
            generation=d.get("generation", 0),
            labels=d.get("labels") or {},
            annotations=d.get("annotations") or {},
            creation_timestamp=parse_time(d.get("creationTimestamp")),
            deletion_timestamp=parse_time(d.get("deletionTimestamp")),
            deletion_grace_period_s=d.get("deletionGracePeriodSeconds"),
            finalizers=tuple(d.get("finalizers") or ()),
            owner_references=_many(OwnerReference.of, d.get("ownerReferences")),
        )


@dataclass(frozen=True, slots=True)
class HTTPGetAction:
    """``httpGet`` of a probe or hook; ``port`` is a number or a port's name."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, d: Document) -> "HTTPGetAction":
        """Read an HTTPGetAction."""
        return cls(
            port=d.get("port", 0),
            path=d.get("path") or "/",
            host=d.get("host", ""),
            scheme=d.get("scheme") or "HTTP",
            headers=tuple(
                (h.get("name", ""), h.get("value", ""))
                for h in d.get("httpHeaders") or ()
            ),
        )


@dataclass(frozen=True, slots=True)
class TCPSocketAction:
    """``tcpSocket`` of a probe or hook."""

    port: int | str
    host: str = ""

    @classmethod
    def of(cls, d: Document) -> "TCPSocketAction":
        """Read a TCPSocketAction."""
        return cls(port=d.get("port", 0), host=d.get("host", ""))


@dataclass(frozen=True, slots=True)
class GRPCAction:
    """``grpc`` of a probe."""

    port: int
    service: str = ""

    @classmethod
    def of(cls, d: Document) -> "GRPCAction":
        """Read a GRPCAction."""
        return cls(port=int(d.get("port", 0)), service=d.get("service") or "")


@dataclass(frozen=True, slots=True)
class Handler:
    """What a hook or probe does; exactly one field is set."""

    exec_command: tuple[str, ...] | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    sleep_s: int | None = None

    @classmethod
    def of(cls, d: Document) -> "Handler":
        """Read a LifecycleHandler or ProbeHandler."""
        execute = d.get("exec")
        sleep = d.get("sleep")
        return cls(
            exec_command=None
            if execute is None
            else tuple(execute.get("command") or ()),
            http_get=_maybe(HTTPGetAction.of, d.get("httpGet")),
            tcp_socket=_maybe(TCPSocketAction.of, d.get("tcpSocket")),
            grpc=_maybe(GRPCAction.of, d.get("grpc")),
            sleep_s=None if sleep is None else int(sleep.get("seconds", 0)),
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe; all ``_s`` in whole seconds."""

    handler: Handler
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_s: int | None = None

    @classmethod
    def of(cls, d: Document) -> "Probe":
        """Read a Probe."""
        return cls(
            handler=Handler.of(d),
            initial_delay_s=d.get("initialDelaySeconds") or 0,
            period_s=d.get("periodSeconds") or 10,
            timeout_s=d.get("timeoutSeconds") or 1,
            success_threshold=d.get("successThreshold") or 1,
            failure_threshold=d.get("failureThreshold") or 3,
            termination_grace_period_s=d.get("terminationGracePeriodSeconds"),
        )


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Hooks of a container."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None
    stop_signal: str = ""

    @classmethod
    def of(cls, d: Document) -> "Lifecycle":
        """Read a Lifecycle."""
        return cls(
            post_start=_maybe(Handler.of, d.get("postStart")),
            pre_stop=_maybe(Handler.of, d.get("preStop")),
            stop_signal=d.get("stopSignal") or "",
        )


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port; ``host_port`` 0 means none."""

    container_port: int
    protocol: str = "TCP"
    name: str = ""
    host_port: int = 0
    host_ip: str = ""

    @classmethod
    def of(cls, d: Document) -> "ContainerPort":
        """Read a ContainerPort."""
        return cls(
            container_port=d.get("containerPort", 0),
            protocol=d.get("protocol") or "TCP",
            name=d.get("name", ""),
            host_port=d.get("hostPort") or 0,
            host_ip=d.get("hostIP", ""),
        )


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    read_only: bool = False
    recursive_read_only: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""

    @classmethod
    def of(cls, d: Document) -> "VolumeMount":
        """Read a VolumeMount."""
        return cls(
            name=d.get("name", ""),
            mount_path=d.get("mountPath", ""),
            read_only=bool(d.get("readOnly")),
            recursive_read_only=d.get("recursiveReadOnly") or "",
            sub_path=d.get("subPath", ""),
            sub_path_expr=d.get("subPathExpr", ""),
            mount_propagation=d.get("mountPropagation") or "",
        )


@dataclass(frozen=True, slots=True)
class ResourceRequirements:
    """Requests and limits, resource name to quantity text."""

    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, d: Document | None) -> "ResourceRequirements":
        """Read ResourceRequirements; absent means none."""
        d = d or {}
        return cls(
            requests={k: str(v) for k, v in (d.get("requests") or {}).items()},
            limits={k: str(v) for k, v in (d.get("limits") or {}).items()},
        )


@dataclass(frozen=True, slots=True)
class RestartRule:
    """One of ``restartPolicyRules``. ``operator`` is ``In`` or ``NotIn``."""

    action: str
    operator: str = ""
    exit_codes: tuple[int, ...] = ()

    @classmethod
    def of(cls, d: Document) -> "RestartRule":
        """Read a ContainerRestartRule."""
        codes = d.get("exitCodes") or {}
        return cls(
            action=d.get("action", ""),
            operator=codes.get("operator", ""),
            exit_codes=tuple(codes.get("values") or ()),
        )


@dataclass(frozen=True, slots=True)
class Container:
    """A container, of any of the three lists.

    Attributes:
        security_context: the document as it is (``None`` where absent).
        env: the documents in declared order.
        restart_policy: the container's own, empty where it has none.
        target_container: an ephemeral container's target, else empty.
    """

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[Document, ...] = ()
    env_from: tuple[Document, ...] = ()
    resources: ResourceRequirements = field(default_factory=ResourceRequirements)
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    image_pull_policy: str = "IfNotPresent"
    security_context: Document | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    restart_policy: str = ""
    restart_policy_rules: tuple[RestartRule, ...] = ()
    target_container: str = ""
    document: Document = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_sidecar(self) -> bool:
        """Whether, as an init container, it keeps running beside the others."""
        return self.restart_policy == "Always"

    def port_number(self, port: int | str) -> int | None:
        """Return the number of a port given by number or name, or ``None``."""
        if isinstance(port, str):
            named = [p.container_port for p in self.ports if p.name == port]
            if named:
                return named[0]
            if not port.isdigit():
                return None
            port = int(port)
        return port if 0 < port < 65536 else None

    @classmethod
    def of(cls, d: Document) -> "Container":
        """Read a Container or EphemeralContainer."""
        return cls(
            name=d.get("name", ""),
            image=d.get("image", ""),
            command=tuple(d.get("command") or ()),
            args=tuple(d.get("args") or ()),
            working_dir=d.get("workingDir", ""),
            ports=_many(ContainerPort.of, d.get("ports")),
            env=tuple(d.get("env") or ()),
            env_from=tuple(d.get("envFrom") or ()),
            resources=ResourceRequirements.of(d.get("resources")),
            volume_mounts=_many(VolumeMount.of, d.get("volumeMounts")),
            liveness_probe=_maybe(Probe.of, d.get("livenessProbe")),
            readiness_probe=_maybe(Probe.of, d.get("readinessProbe")),
            startup_probe=_maybe(Probe.of, d.get("startupProbe")),
            lifecycle=_maybe(Lifecycle.of, d.get("lifecycle")),
            termination_message_path=d.get("terminationMessagePath")
            or "/dev/termination-log",
            termination_message_policy=d.get("terminationMessagePolicy") or "File",
            image_pull_policy=d.get("imagePullPolicy") or "IfNotPresent",
            security_context=d.get("securityContext"),
            stdin=bool(d.get("stdin")),
            stdin_once=bool(d.get("stdinOnce")),
            tty=bool(d.get("tty")),
            restart_policy=d.get("restartPolicy") or "",
            restart_policy_rules=_many(RestartRule.of, d.get("restartPolicyRules")),
            target_container=d.get("targetContainerName") or "",
            document=d,
        )


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume: its name, the one source it has, and the source's document."""

    name: str
    source: str
    spec: Document

    @classmethod
    def of(cls, d: Document) -> "Volume":
        """Read a Volume; no source means ``emptyDir``."""
        for key, spec in d.items():
            if key != "name" and spec is not None:
                return cls(d.get("name", ""), key, spec)
        return cls(d.get("name", ""), "emptyDir", {})


@dataclass(frozen=True, slots=True)
class HostAlias:
    """One line for ``/etc/hosts``."""

    ip: str
    hostnames: tuple[str, ...]

    @classmethod
    def of(cls, d: Document) -> "HostAlias":
        """Read a HostAlias."""
        return cls(d.get("ip", ""), tuple(d.get("hostnames") or ()))


@dataclass(frozen=True, slots=True)
class PodSpec:
    """``spec`` of a Pod."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    termination_grace_period_s: int | None = 30
    active_deadline_s: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: Document | None = None
    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_users: bool | None = None
    share_process_namespace: bool = False
    security_context: Document = field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = False
    hostname_override: str | None = None
    host_aliases: tuple[HostAlias, ...] = ()
    priority: int | None = None
    runtime_class_name: str = ""
    enable_service_links: bool = True
    readiness_gates: tuple[str, ...] = ()
    overhead: Mapping[str, str] = field(default_factory=dict)
    resources: ResourceRequirements | None = None

    @classmethod
    def of(cls, d: Document) -> "PodSpec":
        """Read a PodSpec."""
        links = d.get("enableServiceLinks")
        return cls(
            containers=_many(Container.of, d.get("containers")),
            init_containers=_many(Container.of, d.get("initContainers")),
            ephemeral_containers=_many(Container.of, d.get("ephemeralContainers")),
            volumes=_many(Volume.of, d.get("volumes")),
            restart_policy=d.get("restartPolicy") or "Always",
            termination_grace_period_s=d.get("terminationGracePeriodSeconds"),
            active_deadline_s=d.get("activeDeadlineSeconds"),
            dns_policy=d.get("dnsPolicy") or "ClusterFirst",
            dns_config=d.get("dnsConfig"),
            node_name=d.get("nodeName") or "",
            service_account_name=d.get("serviceAccountName") or "",
            host_network=bool(d.get("hostNetwork")),
            host_pid=bool(d.get("hostPID")),
            host_ipc=bool(d.get("hostIPC")),
            host_users=d.get("hostUsers"),
            share_process_namespace=bool(d.get("shareProcessNamespace")),
            security_context=d.get("securityContext") or {},
            image_pull_secrets=tuple(
                s.get("name", "") for s in d.get("imagePullSecrets") or ()
            ),
            hostname=d.get("hostname") or "",
            subdomain=d.get("subdomain") or "",
            set_hostname_as_fqdn=bool(d.get("setHostnameAsFQDN")),
            hostname_override=d.get("hostnameOverride"),
            host_aliases=_many(HostAlias.of, d.get("hostAliases")),
            priority=d.get("priority"),
            runtime_class_name=d.get("runtimeClassName") or "",
            enable_service_links=True if links is None else bool(links),
            readiness_gates=tuple(
                g.get("conditionType", "") for g in d.get("readinessGates") or ()
            ),
            overhead={k: str(v) for k, v in (d.get("overhead") or {}).items()},
            resources=None
            if d.get("resources") is None
            else ResourceRequirements.of(d["resources"]),
        )


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod as the agent and the scheduler see it.

    ``status`` is the document the API last showed; ``document`` the whole object.
    """

    metadata: ObjectMeta
    spec: PodSpec
    status: Document = field(default_factory=dict, compare=False)
    document: Document = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, document: Document) -> "Pod":
        """Read a Pod document."""
        return cls(
            metadata=ObjectMeta.of(document.get("metadata") or {}),
            spec=PodSpec.of(document.get("spec") or {}),
            status=document.get("status") or {},
            document=document,
        )

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return self.metadata.uid

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace

    @property
    def full_name(self) -> str:
        """``name_namespace(uid)``, as messages show a Pod."""
        return f"{self.name}_{self.namespace}({self.uid})"

    @property
    def phase(self) -> str:
        """status.phase as the API last showed it."""
        return str(self.status.get("phase") or "")

    @property
    def deleting(self) -> bool:
        """Whether the API wants it gone."""
        return self.metadata.deletion_timestamp is not None

    @property
    def is_static(self) -> bool:
        """Whether it comes from the manifest directory, not from the API."""
        source = self.metadata.annotations.get("kubernetes.io/config.source", "api")
        return source != "api"

    @property
    def is_mirror(self) -> bool:
        """Whether it is only the API's picture of a static Pod."""
        return "kubernetes.io/config.mirror" in self.metadata.annotations

    def all_containers(self) -> tuple[Container, ...]:
        """Return init, regular and ephemeral containers, in that order."""
        spec = self.spec
        return spec.init_containers + spec.containers + spec.ephemeral_containers

    def find_container(self, name: str) -> Container | None:
        """Return the container of that name from any list."""
        return next((c for c in self.all_containers() if c.name == name), None)

    def field_path(self, container: str) -> str:
        """Return the fieldPath events of that container carry."""
        spec = self.spec
        for listed, field_name in (
            (spec.containers, "containers"),
            (spec.init_containers, "initContainers"),
            (spec.ephemeral_containers, "ephemeralContainers"),
        ):
            if any(c.name == container for c in listed):
                return f"spec.{field_name}{{{container}}}"
        return ""
