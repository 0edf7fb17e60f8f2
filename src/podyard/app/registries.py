"""Registries as this machine knows them: settings, logins, credential files."""

import asyncio
import fcntl
import json
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from podyard.api.image_ref import ImageRefError, parse_image_name
from podyard.api.runtime import ImageAuth
from podyard.app.config import Config
from podyard.lib.clock import SystemClock
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import (
    CredentialParseError,
    normalize_key,
    parse_config_json,
    parse_dockercfg,
)
from podyard.node.credentials.manager import find_node_files
from podyard.node.credentials.parts import NodeFiles
from podyard.registry.client import RegistryClient
from podyard.registry.hosts import (
    DOCKER_HUB,
    Registry,
    hosts_files,
    normal_host,
    parse_hosts_toml,
)
from podyard.registry.transport import Exchange, Timeouts

#: Where a containerd of the system is told about registries.
SYSTEM_HOSTS: Final = Path("/etc/containerd/certs.d")
#: How our own ``hosts.toml`` files begin; only those are ever removed.
_OWN_MARK: Final = "# Written by podyard"
#: The key that every tool knows Docker Hub by.
_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"


class RegistriesError(Exception):
    """The errand cannot be done; the message says why and what to do."""


# -- containerd's hosts directory ------------------------------------------------


def write_hosts(directory: Path, registries: Sequence[Registry]) -> None:
    """Make containerd's hosts directory say what the config says (blocking).

    Each file is replaced whole, and containerd reads them anew for every pull. Files
    that a person put beside ours stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = hosts_files(registries)
    for name, text in wanted.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        _replace(path, text.encode(), mode=0o644)
    for path in directory.glob("*/hosts.toml"):
        ours = path.read_text(errors="replace").startswith(_OWN_MARK)
        if ours and str(path.relative_to(directory)) not in wanted:
            shutil.rmtree(path.parent)


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file whole or not at all."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


# -- what a client is made of ----------------------------------------------------


def registries_of(config: Config, directory: Path = SYSTEM_HOSTS) -> list[Registry]:
    """Return what counts for registries (blocking).

    A runtime that Podyard does not configure has its own hosts directory; what stands
    there counts where the config says nothing.

    Raises:
        RegistriesError: a file there cannot be used.
    """
    found = list(config.registries)
    if not config.runtime_endpoint:
        return found
    named = {registry.host for registry in found}
    for path in sorted(directory.glob("*/hosts.toml")):
        host = path.parent.name
        if normal_host(host) in named:
            continue
        try:
            text = path.read_text()
            found.append(parse_hosts_toml(text, host=host, directory=str(path.parent)))
        except (OSError, ValueError) as error:
            raise RegistriesError(f"{path}: {error}") from error
    return found


async def registry_client(
    config: Config,
    *,
    on_exchange: Callable[[Exchange], None] | None = None,
    timeouts: Timeouts | None = None,
) -> RegistryClient:
    """Return a client with this machine's settings and proxies.

    Raises:
        RegistriesError: the settings cannot be used.
    """
    return RegistryClient(
        clock=SystemClock(),
        registries=await asyncio.to_thread(registries_of, config),
        proxy_of=proxy_of,
        on_exchange=on_exchange,
        timeouts=timeouts,
    )


def proxy_of(url: str) -> str | None:
    """Return the HTTP proxy that the environment names for a URL."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies_environment().get(parts.scheme)


def credential_files(config: Config) -> NodeFiles:
    """Return where the node's own credential files are looked for, in order."""
    home = os.environ.get("HOME")
    return find_node_files(
        root_dir=config.root_dir,
        working_dir=Path.cwd(),
        home=Path(home) if home else None,
    )


# -- login -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A login that worked.

    Attributes:
        file: where it was written.
        asked: the registry asked for credentials; else nobody checked them.
    """

    host: str
    file: Path
    asked: bool


async def log_in(config: Config, host: str, username: str, password: str) -> LoggedIn:
    """Check credentials with a registry and keep them in the node's own file.

    Raises:
        RegistriesError: the name is none, or the file cannot be used.
        RegistryError: the registry refuses them, or does not answer.
    """
    host = registry_of(host)
    async with await registry_client(config) as client:
        asked = await client.log_in(
            host, ImageAuth(username=username, password=password)
        )
    file = config.root_dir / "config.json"
    pair = b64encode(f"{username}:{password}".encode()).decode()
    await asyncio.to_thread(_change_auths, file, host, {"auth": pair})
    return LoggedIn(host, file, asked)


async def log_out(config: Config, host: str) -> Path | None:
    """Forget a registry's credentials; ``None`` where there were none.

    Raises:
        RegistriesError: the file cannot be used.
    """
    file = config.root_dir / "config.json"
    if not file.exists():
        return None
    changed = await asyncio.to_thread(_change_auths, file, registry_of(host), None)
    return file if changed else None


def registry_of(text: str) -> str:
    """Return a registry as image names have it, from what a person typed.

    Raises:
        RegistriesError: it names none.
    """
    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = host.removesuffix("/v1").removesuffix("/v2")
    try:
        domain = parse_image_name(f"{host}/image").domain
    except ImageRefError as error:
        raise RegistriesError(f'"{text}" is no registry: {error}') from error
    if "/" in host or normal_host(host) != domain:
        raise RegistriesError(
            f'"{text}" is no registry: give a host, with its port where it has one '
            "(docker.io, registry.example.com:5000)"
        )
    return domain


def _change_auths(file: Path, host: str, entry: Mapping[str, str] | None) -> bool:
    """Put an entry into a ``config.json``, or take it out; tell whether it changed."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    with _locked(file.parent):
        document = _read_config(file)
        auths = document.setdefault("auths", {})
        same = [key for key in auths if _host_of_key(key) == host]
        for key in same:
            del auths[key]
        if entry is not None:
            auths[_DOCKER_HUB_KEY if host == DOCKER_HUB else host] = dict(entry)
        elif not same:
            return False
        text = json.dumps(document, indent=2) + "\n"
        _replace(file, text.encode(), mode=0o600)
    return True


def _host_of_key(key: str) -> str:
    normal = normalize_key(key) or ""
    return normal_host(normal) if "/" not in normal else ""


def _read_config(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RegistriesError(f"{file}: cannot be read: {error}") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RegistriesError(
            f"{file} is not valid JSON; mend or remove it first"
        ) from error
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise RegistriesError(f"{file} is no config.json; mend or remove it first")
    return dict(document)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# -- which files hold what -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CredentialEntry:
    """One entry of a credential file; never its secret."""

    key: str
    username: str
    kind: Literal["password", "identity token", "registry token", "empty"]


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """One place where the node's credentials are looked for.

    Attributes:
        state: ``used``, ``shadowed``, ``missing`` or ``invalid``.
        problem: why it is invalid.
        helpers: credential helpers it names, which are asked.
    """

    path: Path
    state: Literal["used", "shadowed", "missing", "invalid"]
    problem: str = ""
    entries: tuple[CredentialEntry, ...] = ()
    helpers: tuple[str, ...] = ()


def read_credential_files(config: Config) -> tuple[CredentialFile, ...]:
    """Return every place that is searched, in order, and what is there (blocking).

    The first valid file counts; the others are not merged into it.
    """
    files = credential_files(config)
    found: list[CredentialFile] = []
    seen: set[Path] = set()
    used = False
    for path in (*files.config_json, *files.dockercfg):
        if path in seen:
            continue
        seen.add(path)
        read = _read_credential_file(path, legacy=path in files.dockercfg)
        if read.state == "used" and used:
            read = replace(read, state="shadowed")
        used = used or read.state == "used"
        found.append(read)
    return tuple(found)


def _read_credential_file(path: Path, *, legacy: bool) -> CredentialFile:
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return CredentialFile(path, "missing")
    except OSError as error:
        return CredentialFile(path, "invalid", error.strerror or "cannot be read")
    try:
        parsed = parse_dockercfg(raw) if legacy else parse_config_json(raw)
    except CredentialParseError as error:
        return CredentialFile(path, "invalid", str(error))
    entries = tuple(_entry(key, auth) for key, auth in parsed.entries)
    return CredentialFile(path, "used", entries=entries, helpers=parsed.helpers)


def _entry(key: str, auth: ImageAuth) -> CredentialEntry:
    if auth.identity_token:
        return CredentialEntry(key, auth.username, "identity token")
    if auth.registry_token:
        return CredentialEntry(key, auth.username, "registry token")
    kind: Literal["password", "empty"] = "password" if auth.username else "empty"
    return CredentialEntry(key, auth.username, kind)
