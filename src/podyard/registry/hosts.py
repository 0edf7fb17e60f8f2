"""Where a registry is reached: mirrors, plain HTTP, private authorities. Free of I/O.

The same settings serve our own client and containerd, whose form they are written in:
one directory a registry with a ``hosts.toml``
(https://github.com/containerd/containerd/blob/main/docs/hosts.md).
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from podyard.lib.values import dataclass
from podyard.registry.decide import RegistryTrust
from podyard.registry.words import Origin, parse_origin

#: Names the settings of every registry that has none of its own.
DEFAULT: Final = "_default"
DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_HOST: Final = "registry-1.docker.io"

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?"
)


class HostsError(ValueError):
    """A registry's settings cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server to ask for a registry's images.

    Attributes:
        url: its address with the path before ``/v2``, ``https://host:port/prefix``.
        insecure: its certificate is not verified.
        ca: files with authorities to trust besides the system's.
        mirror: it is not the registry itself, so it gets no credentials.
        override_path: the path is complete, ``/v2`` is not added.
        resolve: tags may be resolved here; else only digests.
    """

    url: str
    insecure: bool = False
    ca: tuple[str, ...] = ()
    mirror: bool = False
    override_path: bool = False
    resolve: bool = True

    @property
    def origin(self) -> Origin:
        """Scheme, host and port."""
        return parse_origin(self.url)

    @property
    def base(self) -> str:
        """What the paths of the distribution API are added to."""
        url = self.url.rstrip("/")
        return url if self.override_path or url.endswith("/v2") else f"{url}/v2"


@dataclass(frozen=True, slots=True)
class Registry:
    """What a person said about one registry.

    Attributes:
        host: as it stands in image names, ``docker.io``, ``reg.example.com:5000``; or
            ``_default``, for the mirrors of all others.
        mirrors: asked before the registry, in order.
        server: the registry's own address, where it is not ``https://host``.
        insecure: plain HTTP and unverified certificates are accepted.
        ca: files with authorities to trust besides the system's.
        token_realms: realm hosts that may have its credentials.
    """

    host: str
    mirrors: tuple[Endpoint, ...] = ()
    server: str = ""
    insecure: bool = False
    ca: tuple[str, ...] = ()
    token_realms: tuple[str, ...] = ()

    @property
    def trust(self) -> RegistryTrust:
        """What decides about credentials."""
        return RegistryTrust(self.insecure, self.token_realms)


# -- from the config -------------------------------------------------------------

_KEYS: Final = ("host", "mirrors", "server", "insecure", "ca", "token-realms")
_MIRROR_KEYS: Final = ("url", "insecure", "ca", "override-path", "resolve")


def parse_registries(values: Sequence[Mapping[str, object]]) -> tuple[Registry, ...]:
    """Read ``registries:`` of the config: host, mirrors, server, insecure, ca.

    Raises:
        HostsError: a value is wrong, unknown or given twice.
    """
    found: dict[str, Registry] = {}
    for number, value in enumerate(values):
        registry = _registry(value, f"registries[{number}]")
        if registry.host in found:
            raise HostsError(f'registries[{number}]: host "{registry.host}" is twice')
        found[registry.host] = registry
    return tuple(found.values())


def _registry(value: Mapping[str, object], where: str) -> Registry:
    _check_keys(value, _KEYS, where)
    host = _text(value.get("host"), f"{where}.host")
    if host != DEFAULT and not _HOST.fullmatch(host):
        raise HostsError(
            f'{where}.host: "{host}" is no registry as image names have it: a host, '
            'with its port where it has one, without "https://" and path'
        )
    where = f"{where} ({host})"
    mirrors = value.get("mirrors", [])
    if not isinstance(mirrors, list):
        raise HostsError(f"{where}.mirrors: must be a list")
    server = value.get("server", "")
    if host == DEFAULT and not set(value) <= {"host", "mirrors"}:
        raise HostsError(
            f"{where}: {DEFAULT} stands for many servers and takes mirrors only; name "
            "the registry that the rest is for"
        )
    return Registry(
        host=normal_host(host),
        mirrors=tuple(
            _mirror(mirror, f"{where}.mirrors[{number}]")
            for number, mirror in enumerate(mirrors)
        ),
        server=_url(server, f"{where}.server") if server else "",
        insecure=_flag(value, "insecure", where, default=False),
        ca=_files(value.get("ca", ()), f"{where}.ca"),
        token_realms=_texts(value.get("token-realms", ()), f"{where}.token-realms"),
    )


def _mirror(value: object, where: str) -> Endpoint:
    if isinstance(value, str):
        return Endpoint(_url(value, where), mirror=True)
    if not isinstance(value, Mapping):
        raise HostsError(f"{where}: must be a URL, or a map with url")
    _check_keys(value, _MIRROR_KEYS, where)
    return Endpoint(
        _url(value.get("url"), f"{where}.url"),
        insecure=_flag(value, "insecure", where, default=False),
        ca=_files(value.get("ca", ()), f"{where}.ca"),
        mirror=True,
        override_path=_flag(value, "override-path", where, default=False),
        resolve=_flag(value, "resolve", where, default=True),
    )


def _check_keys(value: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise HostsError(
                f'{where}: unknown key "{key}"; known keys: {", ".join(known)}'
            )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise HostsError(f"{where}: must be a string that is not empty")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value, where),)
    if not isinstance(value, list | tuple):
        raise HostsError(f"{where}: must be a string or a list of strings")
    return tuple(_text(item, where) for item in value)


def _files(value: object, where: str) -> tuple[str, ...]:
    files = _texts(value, where)
    for file in files:
        if not file.startswith("/"):
            raise HostsError(f'{where}: "{file}" must be an absolute path')
    return files


def _flag(value: Mapping[str, object], key: str, where: str, *, default: bool) -> bool:
    flag = value.get(key, default)
    if not isinstance(flag, bool):
        raise HostsError(f"{where}.{key}: must be true or false")
    return flag


def _url(value: object, where: str) -> str:
    url = _text(value, where)
    if "://" not in url:
        url = f"https://{url}"
    try:
        parse_origin(url)
        parts = urlsplit(url)
    except ValueError as error:
        raise HostsError(f'{where}: "{url}": {error}') from error
    if parts.query or parts.fragment:
        raise HostsError(f'{where}: "{url}" must not have a query')
    return url.rstrip("/")


# -- whom to ask -----------------------------------------------------------------


def normal_host(host: str) -> str:
    """Return a registry's host as image names have it after normalization."""
    return DOCKER_HUB if host in {"index.docker.io", _DOCKER_HUB_HOST} else host


def find_registry(host: str, registries: Iterable[Registry]) -> Registry:
    """Return the settings that count for a host; plain ones where there are none."""
    known = {registry.host: registry for registry in registries}
    if host in known:
        return known[host]
    if DEFAULT in known:
        return replace(known[DEFAULT], host=host)
    return Registry(host)


def endpoints(registry: Registry) -> tuple[Endpoint, ...]:
    """Return whom to ask, in order: the mirrors, then the registry itself.

    An insecure registry is tried with TLS first, then without; one on loopback that
    nobody configured is spoken to in plain HTTP, as containerd does.
    """
    return (*registry.mirrors, *_own_endpoints(registry))


def own_server(host: str, registries: Iterable[Registry]) -> str:
    """Return a registry's own address, which its credentials are bound to.

    A runtime that is given this with a credential keeps it from mirrors.
    """
    return _own_endpoints(find_registry(host, registries))[0].url


def _own_endpoints(registry: Registry) -> tuple[Endpoint, ...]:
    if registry.insecure and not registry.server:
        secure = default_server(registry.host, plain=False)
        plain = "http" + secure.removeprefix("https")
        urls: tuple[str, ...] = (secure, plain)
    else:
        plain_only = _is_plain(registry)
        urls = (registry.server or default_server(registry.host, plain=plain_only),)
    return tuple(
        Endpoint(url, insecure=registry.insecure, ca=registry.ca) for url in urls
    )


def _is_plain(registry: Registry) -> bool:
    if registry.ca or registry.insecure or registry.host == DOCKER_HUB:
        return False
    return parse_origin(f"http://{registry.host}").is_loopback


def default_server(host: str, *, plain: bool) -> str:
    """Return the address of a registry that nobody gave another one."""
    if host == DOCKER_HUB:
        return f"https://{_DOCKER_HUB_HOST}"
    return f"{'http' if plain else 'https'}://{host}"


# -- containerd's hosts directory ------------------------------------------------


def build_hosts_toml(registry: Registry) -> str:
    """Return ``hosts.toml`` for a registry; the servers in it are asked in order."""
    lines = ["# Written by podyard; changes are overwritten at its next start."]
    first = registry.mirrors
    if registry.host != DEFAULT:
        *others, last = endpoints(registry)
        # containerd 1.6 takes no notice of a file without tables.
        first = tuple(others) or (last,)
        lines.append(f"server = {json.dumps(last.url)}")
        lines += _settings(last, indent="")
    for endpoint in first:
        lines += ["", f"[host.{json.dumps(endpoint.url)}]"]
        lines += _settings(endpoint, indent="  ")
    return "\n".join(lines) + "\n"


def _settings(endpoint: Endpoint, *, indent: str) -> list[str]:
    able = ["pull", "resolve"] if endpoint.resolve else ["pull"]
    lines = [f"{indent}capabilities = {json.dumps(able)}"]
    if endpoint.ca:
        lines.append(f"{indent}ca = {json.dumps(list(endpoint.ca))}")
    if endpoint.insecure:
        lines.append(f"{indent}skip_verify = true")
    if endpoint.override_path:
        lines.append(f"{indent}override_path = true")
    return lines


def hosts_files(registries: Iterable[Registry]) -> dict[str, str]:
    """Return relative path → text of a whole hosts directory."""
    return {
        f"{registry.host}/hosts.toml": build_hosts_toml(registry)
        for registry in registries
    }


def parse_hosts_toml(text: str, *, host: str, directory: str) -> Registry:
    """Read a ``hosts.toml`` that somebody else wrote.

    Args:
        text: the file.
        host: the registry whose directory it stands in.
        directory: that directory; relative authority files are in it.

    Raises:
        HostsError: it cannot be used.
    """
    where = f"{directory}/hosts.toml"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HostsError(f"{where}: {error}") from error
    tables = document.get("host", {})
    if not isinstance(tables, dict):
        raise HostsError(f"{where}: host must be a table")
    asked = []
    for url, table in tables.items():
        if not isinstance(table, dict):
            raise HostsError(f'{where}: host."{url}" must be a table')
        asked.append(_toml_endpoint(str(url), table, where, directory))
    server = str(document.get("server") or "")
    asked = [endpoint for endpoint in asked if endpoint.url != server.rstrip("/")]
    own = _toml_endpoint(server or f"https://{host}", document, where, directory)
    own_host = parse_origin(default_server(host, plain=False)).host
    mirrors = tuple(
        replace(endpoint, mirror=parse_origin(endpoint.url).host != own_host)
        for endpoint in asked
    )
    return Registry(
        host=normal_host(host),
        mirrors=mirrors,
        server=own.url if server else "",
        insecure=own.insecure or own.url.startswith("http://"),
        ca=own.ca,
    )


def _toml_endpoint(
    url: str, table: Mapping[str, object], where: str, directory: str
) -> Endpoint:
    able = table.get("capabilities")
    authorities = table.get("ca") or ()
    if isinstance(authorities, str):
        authorities = (authorities,)
    if not isinstance(authorities, list | tuple):
        raise HostsError(f"{where}: ca must be a file or a list of files")
    return Endpoint(
        _url(url, where),
        insecure=table.get("skip_verify") is True,
        ca=tuple(
            str(file) if str(file).startswith("/") else f"{directory}/{file}"
            for file in authorities
        ),
        override_path=table.get("override_path") is True,
        resolve=not isinstance(able, list) or "resolve" in able,
    )
