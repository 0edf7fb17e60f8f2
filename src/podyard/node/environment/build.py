"""What a container finds around it, as documents: variables, hosts, DNS, host name.

Pure: everything that has to be looked up is handed in. Texts with bytes that are no
UTF-8 (a Secret may hold any) travel as str with surrogate escapes.

Source: https://kubernetes.io/docs/concepts/containers/container-environment/,
https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/ and
``pkg/kubelet`` (v1.36).
"""

import base64
import binascii
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import lru_cache
from typing import Final, TypeAlias

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.api.downward import DownwardError, env_field, resource_field
from podyard.api.expansion import expand
from podyard.api.runtime import DNSConfig, EnvVar
from podyard.lib.values import dataclass
from podyard.node.environment.parts import EnvironmentBuildError

MAX_HOSTNAME: Final = 63
MAX_FQDN: Final = 64
MAX_NAMESERVERS: Final = 3
MAX_SEARCHES: Final = 32
MAX_SEARCH_CHARS: Final = 2048
MAX_SEARCH_DOMAIN: Final = 253
MASTER_SERVICE: Final = "kubernetes"
MASTER_NAMESPACE: Final = "default"

HOSTS_HEADER: Final = "# Kubernetes-managed hosts file.\n"
HOST_NETWORK_HOSTS_HEADER: Final = "# Kubernetes-managed hosts file (host network).\n"
_HOSTS_FIXED: Final = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


@dataclass(frozen=True, slots=True)
class SourceError:
    """A ConfigMap or Secret that could not be read; the message says why."""

    message: str


#: A looked-up object: itself, ``None`` where it does not exist, or why it failed.
Source: TypeAlias = Document | SourceError | None


@dataclass(frozen=True, slots=True)
class EnvironmentSources:
    """Everything variables are made of.

    Attributes:
        services: the Services known; ``None`` before they have been read once.
        config_maps: by name, for every name the container refers to.
        secrets: likewise.
        files: an env file's text by ``(volume, path)``; an error where it cannot be
            read.
        pod_ips: the Pod's addresses, the first one first.
        host_ips: the node's.
        node_allocatable: stands in for limits that are not set.
    """

    services: Iterable[Document] | None = ()
    config_maps: Mapping[str, Source] = field(default_factory=dict)
    secrets: Mapping[str, Source] = field(default_factory=dict)
    files: Mapping[tuple[str, str], str | SourceError] = field(default_factory=dict)
    pod_ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    node_allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class References:
    """Names a container's variables refer to, in the order of their use."""

    config_maps: tuple[str, ...]
    secrets: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def find_references(container: Container) -> References:
    """Return what has to be looked up before the variables can be built."""
    config_maps: dict[str, None] = {}
    secrets: dict[str, None] = {}
    files: dict[tuple[str, str], None] = {}
    for source in container.env_from:
        if (reference := source.get("configMapRef")) is not None:
            config_maps[reference.get("name", "")] = None
        elif (reference := source.get("secretRef")) is not None:
            secrets[reference.get("name", "")] = None
    for variable in container.env:
        value_from = variable.get("valueFrom") or {}
        if (reference := value_from.get("configMapKeyRef")) is not None:
            config_maps[reference.get("name", "")] = None
        elif (reference := value_from.get("secretKeyRef")) is not None:
            secrets[reference.get("name", "")] = None
        elif (reference := value_from.get("fileKeyRef")) is not None:
            files[reference.get("volumeName", ""), reference.get("path", "")] = None
    return References(tuple(config_maps), tuple(secrets), tuple(files))


def build_environment(
    pod: Pod, container: Container, sources: EnvironmentSources
) -> tuple[EnvVar, ...]:
    """Return all variables: declared ones in declared order, then Services.

    Raises:
        EnvironmentBuildError: a source is missing; the message is upstream's.
    """
    if sources.services is None:
        raise EnvironmentBuildError(
            "services have not yet been read at least once, cannot construct envvars"
        )
    services = [
        _service_variables(*key) for key in _visible_services(pod, sources.services)
    ]
    service_env: dict[str, str] = {}
    for variables in services:
        service_env.update(variables.texts)
    own: dict[str, str] = {}
    for entry in container.env_from:
        own.update(read_env_from(pod, entry, sources))
    known = ChainMap(own, service_env)
    for variable in container.env:
        name = variable.get("name", "")
        value = read_variable(pod, container, variable, known, sources)
        if value is not None:
            own.pop(name, None)
            own[name] = value
    rest: dict[str, EnvVar] = {}
    for variables in services:
        rest.update(variables.carried)
    for name in own:
        rest.pop(name, None)
    mine = (EnvVar(name, _carry(name, value)) for name, value in own.items())
    return (*mine, *rest.values())


def _carry(name: str, value: str) -> bytes:
    """Return a value as a runtime can carry it.

    Runtimes hand variables on as JSON, which turns other bytes into something else,
    and the kernel ends a variable at a NUL: better no container than a wrong secret.

    Raises:
        EnvironmentBuildError: it would not arrive as it is.
    """
    try:
        carried = value.encode()
    except UnicodeEncodeError:  # kept as surrogates since they were read
        why = "bytes that are no UTF-8"
    else:
        if b"\0" not in carried:
            return carried
        why = "a NUL byte"
    raise EnvironmentBuildError(
        f'environment variable "{name}" holds {why}, which cannot be carried exactly: '
        "mount its source as a volume instead"
    )


def to_mapping(env: Iterable[EnvVar]) -> dict[str, str]:
    """Return built variables as texts, for expansion in commands and paths."""
    return {v.name: v.value.decode("utf-8", "surrogateescape") for v in env}


def read_env_from(
    pod: Pod, entry: Document, sources: EnvironmentSources
) -> dict[str, str]:
    """Return the variables of one ``envFrom`` entry.

    Raises:
        EnvironmentBuildError: its source is missing.
    """
    prefix = entry.get("prefix") or ""
    if (reference := entry.get("configMapRef")) is not None:
        found = _find(pod, "configMap", reference, sources.config_maps)
        data = _texts(found)
    elif (reference := entry.get("secretRef")) is not None:
        found = _find(pod, "secret", reference, sources.secrets)
        data = _decoded(found)
    else:
        return {}
    return {prefix + key: value for key, value in data.items()}


def read_variable(
    pod: Pod,
    container: Container,
    variable: Document,
    known: Mapping[str, str],
    sources: EnvironmentSources,
) -> str | None:
    """Return a variable's value, or ``None`` where it is left out.

    Raises:
        EnvironmentBuildError: its source is missing.
    """
    value = variable.get("value") or ""
    value_from = variable.get("valueFrom")
    if value or not value_from:
        return expand(str(value), known)
    try:
        if (selector := value_from.get("fieldRef")) is not None:
            path = str(selector.get("fieldPath", ""))
            return env_field(
                pod, path, pod_ips=sources.pod_ips, host_ips=sources.host_ips
            )
        if (selector := value_from.get("resourceFieldRef")) is not None:
            return resource_field(
                pod, container, selector, node_allocatable=sources.node_allocatable
            )
    except DownwardError as error:
        raise EnvironmentBuildError(str(error)) from error
    return _read_key(pod, value_from, sources)


def _read_key(
    pod: Pod, value_from: Document, sources: EnvironmentSources
) -> str | None:
    if (selector := value_from.get("configMapKeyRef")) is not None:
        found = _find(pod, "configMap", selector, sources.config_maps)
        return _pick(pod, "ConfigMap", selector, _texts(found))
    if (selector := value_from.get("secretKeyRef")) is not None:
        found = _find(pod, "secret", selector, sources.secrets)
        return _pick(pod, "Secret", selector, _decoded(found))
    if (selector := value_from.get("fileKeyRef")) is not None:
        return _read_file_key(pod, selector, sources)
    return ""


def _find(
    pod: Pod, noun: str, reference: Document, known: Mapping[str, Source]
) -> Document | None:
    """Return the object, or ``None`` where it may be and is missing."""
    name = reference.get("name", "")
    if pod.is_static:
        raise EnvironmentBuildError(
            f"couldn't get {noun} {pod.namespace}/{name}, no kubeClient defined"
        )
    found = known.get(name)
    if isinstance(found, SourceError):
        raise EnvironmentBuildError(found.message)
    if found is None and not reference.get("optional"):
        raise EnvironmentBuildError(f'{noun.lower()} "{name}" not found')
    return found


def _texts(config_map: Document | None) -> dict[str, str]:
    return dict((config_map or {}).get("data") or {})


def _decoded(secret: Document | None) -> dict[str, str]:
    data = (secret or {}).get("data") or {}
    return {key: _decode(value) for key, value in data.items()}


def _decode(value: str | None) -> str:
    try:
        raw = base64.b64decode(value or "")
    except binascii.Error:
        raw = b""
    return raw.decode("utf-8", "surrogateescape")


def _pick(
    pod: Pod, noun: str, selector: Document, data: Mapping[str, str]
) -> str | None:
    key = selector.get("key", "")
    if key in data:
        return data[key]
    if selector.get("optional"):
        return None
    name = selector.get("name", "")
    raise EnvironmentBuildError(
        f"couldn't find key {key} in {noun} {pod.namespace}/{name}"
    )


def _read_file_key(
    pod: Pod, selector: Document, sources: EnvironmentSources
) -> str | None:
    volume, path = selector.get("volumeName", ""), selector.get("path", "")
    key, optional = selector.get("key", ""), bool(selector.get("optional"))
    if not any(v.name == volume and v.source == "emptyDir" for v in pod.spec.volumes):
        raise EnvironmentBuildError(
            f'cannot find the volume "{volume}" referenced by FileKeyRef'
        )
    text = sources.files.get((volume, path), SourceError("no such file or directory"))
    if isinstance(text, SourceError):
        if optional:
            return None
        raise EnvironmentBuildError("couldn't parse env file")
    value = parse_env_file(text, key)
    if value:
        return value
    if optional:
        return None
    raise EnvironmentBuildError(
        f'environment variable key "{key}" not found in file "{path}"'
    )


def parse_env_file(text: str, key: str) -> str:
    """Return a key's value from an env file; empty where it is not there.

    The syntax is a small part of a shell's: ``KEY='value'``, the value over several
    lines if it wants, ``#`` comments; the first line that matches wins.

    Raises:
        EnvironmentBuildError: a line before the match breaks the syntax.
    """
    lines = iter([line.removesuffix("\r") for line in text.split("\n")])
    for raw in lines:
        line = raw.lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        name, equals, rest = line.partition("=")
        if not equals or not name or name != name.rstrip(" \t"):
            raise EnvironmentBuildError("couldn't parse env file")
        if rest != rest.lstrip(" \t") or not rest:
            if not rest:
                raise EnvironmentBuildError("couldn't parse env file")
            if name == key:
                return ""
            continue
        value = _read_quoted(rest, lines)
        if name == key:
            return value
    return ""


def _read_quoted(rest: str, lines: Iterable[str]) -> str:
    if not rest.startswith("'"):
        raise EnvironmentBuildError("couldn't parse env file")
    rest = rest[1:]
    parts: list[str] = []
    while "'" not in rest:
        parts.append(rest)
        following = next(iter(lines), None)
        if following is None:
            raise EnvironmentBuildError("couldn't parse env file")
        rest = following
    value, _, after = rest.partition("'")
    after = after.lstrip(" \t")
    if after and not after.startswith("#"):
        raise EnvironmentBuildError("couldn't parse env file")
    return "\n".join([*parts, value])


def build_service_environment(pod: Pod, services: Iterable[Document]) -> dict[str, str]:
    """Return the variables of the Services a container may see.

    Those of the Pod's own namespace when it wants links, and always the API
    server's. Source: the docker-links set of ``pkg/kubelet/envvars``.
    """
    env: dict[str, str] = {}
    for key in _visible_services(pod, services):
        env.update(_service_variables(*key).texts)
    return env


#: Name, number and protocol of a port.
_Port: TypeAlias = tuple[str, str, str]


def _visible_services(
    pod: Pod, services: Iterable[Document]
) -> list[tuple[str, str, tuple[_Port, ...]]]:
    """Return name, address and ports of those Services, by name."""
    chosen: dict[str, Document] = {}
    for service in services:
        metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
        if spec.get("clusterIP") in {None, "", "None"}:
            continue
        name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
        is_master = name == MASTER_SERVICE and namespace == MASTER_NAMESPACE
        if pod.spec.enable_service_links and namespace == pod.namespace:
            chosen[name] = spec
        elif is_master:
            chosen.setdefault(name, spec)
    return [
        (name, str(chosen[name]["clusterIP"]), tuple(map(_port, _ports(chosen[name]))))
        for name in sorted(chosen)
    ]


def _ports(spec: Document) -> list[Document]:
    return spec.get("ports") or []


def _port(port: Document) -> _Port:
    return port.get("name") or "", str(port.get("port")), port.get("protocol") or "TCP"


def _mangle(name: str) -> str:
    return name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class _ServiceVariables:
    """The variables of one Service, as text and as a runtime carries them."""

    texts: dict[str, str]
    carried: dict[str, EnvVar]


@lru_cache(maxsize=512)
def _service_variables(
    name: str, host: str, ports: tuple[_Port, ...]
) -> _ServiceVariables:
    """Return the variables of a Service, which every container gets the same."""
    prefix = _mangle(name)
    env = {f"{prefix}_SERVICE_HOST": host}
    if ports:
        env[f"{prefix}_SERVICE_PORT"] = ports[0][1]
    for port_name, number, _ in ports:
        if port_name:
            env[f"{prefix}_SERVICE_PORT_{_mangle(port_name)}"] = number
    shown = f"[{host}]" if ":" in host else host
    for index, (_, number, protocol) in enumerate(ports):
        url = f"{protocol.lower()}://{shown}:{number}"
        if index == 0:
            env[f"{prefix}_PORT"] = url
        stem = f"{prefix}_PORT_{number}_{protocol.upper()}"
        env[stem] = url
        env[f"{stem}_PROTO"] = protocol.lower()
        env[f"{stem}_PORT"] = number
        env[f"{stem}_ADDR"] = host
    return _ServiceVariables(
        env, {key: EnvVar(key, _carry(key, value)) for key, value in env.items()}
    )


@dataclass(frozen=True, slots=True)
class Hostname:
    """A Pod's name on its network.

    Attributes:
        name: the short name.
        domain: ``subdomain.namespace.svc.cluster-domain``, or empty.
        kernel: what the kernel is told; empty on the host's network.
    """

    name: str
    domain: str
    kernel: str


def build_hostname(pod: Pod, *, cluster_domain: str) -> Hostname:
    """Return the Pod's host name and domain.

    Raises:
        EnvironmentBuildError: the full name is too long for the kernel; the message
            is that of FailedCreatePodSandBox.
    """
    spec = pod.spec
    if spec.hostname_override:
        kernel = "" if spec.host_network else spec.hostname_override
        return Hostname(spec.hostname_override, "", kernel)
    name = spec.hostname or pod.name
    if len(name) > MAX_HOSTNAME:
        name = name[:MAX_HOSTNAME].rstrip("-.")
    domain = ""
    if spec.subdomain:
        domain = f"{spec.subdomain}.{pod.namespace}.svc.{cluster_domain}"
    if spec.host_network:
        return Hostname(name, domain, "")
    if not (spec.set_hostname_as_fqdn and domain):
        return Hostname(name, domain, name)
    full = f"{name}.{domain}"
    if len(full) > MAX_FQDN:
        raise EnvironmentBuildError(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN "
            f"{full} is too long ({MAX_FQDN} characters is the max, {len(full)} "
            "characters requested)"
        )
    return Hostname(name, domain, full)


def build_hosts_file(
    pod: Pod, *, pod_ips: tuple[str, ...], hostname: Hostname, node_hosts: str = ""
) -> str:
    """Return the managed ``/etc/hosts``.

    Args:
        pod: the Pod.
        pod_ips: its addresses.
        hostname: its name.
        node_hosts: the node's own file, for Pods on the host's network.
    """
    if pod.spec.host_network:
        text = HOST_NETWORK_HOSTS_HEADER + node_hosts
    else:
        text = HOSTS_HEADER + _HOSTS_FIXED
        for ip in pod_ips:
            full = f"{hostname.name}.{hostname.domain}\t" if hostname.domain else ""
            text += f"{ip}\t{full}{hostname.name}\n"
    if pod.spec.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in pod.spec.host_aliases:
            text += "\t".join((alias.ip, *alias.hostnames)) + "\n"
    return text


@dataclass(frozen=True, slots=True)
class DNSSettings:
    """The node's side of name resolution.

    Attributes:
        cluster_dns: addresses of the cluster's DNS; empty where there is none.
        cluster_domain: ``cluster.local``.
        node: the node's own resolv.conf.
    """

    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    node: DNSConfig = field(default_factory=DNSConfig)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something a user should hear about as a Warning event on the Pod."""

    reason: str
    message: str


def parse_resolv_conf(text: str) -> DNSConfig:
    """Read a resolv.conf; the last ``search`` line counts, options add up."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: dict[str, str] = {}
    for raw in text.splitlines():
        words = raw.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        match words[0]:
            case "nameserver":
                servers.append(words[1])
            case "search":
                searches = tuple(
                    word if word == "." else word.rstrip(".") for word in words[1:]
                )
            case "options":
                options.update({word.partition(":")[0]: word for word in words[1:]})
            case _:
                pass
    return DNSConfig(tuple(servers), searches, tuple(options.values()))


def build_dns_config(
    pod: Pod, settings: DNSSettings
) -> tuple[DNSConfig, tuple[Remark, ...]]:
    """Return the Pod's resolver config, and what had to be left out of it."""
    remarks: list[Remark] = []
    config = _by_policy(pod, settings, remarks)
    if pod.spec.dns_config is not None:
        config = _merge(config, pod.spec.dns_config)
    return _within_limits(config, remarks), tuple(remarks)


def _by_policy(pod: Pod, settings: DNSSettings, remarks: list[Remark]) -> DNSConfig:
    policy = pod.spec.dns_policy
    if policy == "None":
        return DNSConfig()
    wants_cluster = policy == "ClusterFirstWithHostNet" or (
        policy == "ClusterFirst" and not pod.spec.host_network
    )
    if not wants_cluster:
        return settings.node
    if not settings.cluster_dns:
        remarks.append(
            Remark(
                "MissingClusterDNS",
                f'pod: "{pod.full_name}". kubelet does not have ClusterDNS IP '
                f'configured and cannot create Pod using "{policy}" policy. '
                'Falling back to "Default" policy.',
            )
        )
        return settings.node
    domain = settings.cluster_domain
    cluster = (f"{pod.namespace}.svc.{domain}", f"svc.{domain}", domain)
    searches = cluster if domain else ()
    return DNSConfig(
        settings.cluster_dns,
        _unique((*searches, *settings.node.searches)),
        ("ndots:5",),
    )


def _merge(config: DNSConfig, own: Document) -> DNSConfig:
    options = {option.partition(":")[0]: option for option in config.options}
    for option in own.get("options") or ():
        name, value = option.get("name", ""), option.get("value")
        options[name] = name if value is None else f"{name}:{value}"
    return DNSConfig(
        _unique((*config.servers, *(own.get("nameservers") or ()))),
        _unique((*config.searches, *(own.get("searches") or ()))),
        tuple(options.values()),
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _within_limits(config: DNSConfig, remarks: list[Remark]) -> DNSConfig:
    servers, searches = config.servers, config.searches
    if len(servers) > MAX_NAMESERVERS:
        servers = servers[:MAX_NAMESERVERS]
        remarks.append(
            Remark(
                "DNSConfigForming",
                "Nameserver limits were exceeded, some nameservers have been omitted, "
                f"the applied nameserver line is: {' '.join(servers)}",
            )
        )
    kept = [search for search in searches if len(search) <= MAX_SEARCH_DOMAIN]
    kept = kept[:MAX_SEARCHES]
    while len(" ".join(kept)) > MAX_SEARCH_CHARS:
        kept.pop()
    if len(kept) < len(searches):
        remarks.append(
            Remark(
                "DNSConfigForming",
                "Search Line limits were exceeded, some search paths have been "
                f"omitted, the applied search line is: {' '.join(kept)}",
            )
        )
    return DNSConfig(servers, tuple(kept), config.options)
