"""A pull without pulling: which credentials would be tried, and what comes of it."""

import asyncio
import platform
from collections.abc import Sequence
from dataclasses import field, replace
from typing import TypeAlias

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.image_ref import ImageRef, ImageRefError, parse_image_name
from podyard.api.runtime import ImageAuth
from podyard.api.scheme import SERVICE_ACCOUNT, Kind
from podyard.app.admin import AdminError, admin_client
from podyard.app.config import Config, ConfigError
from podyard.app.credentials import source_context
from podyard.app.registries import (
    RegistriesError,
    registry_client,
)
from podyard.client.http import HttpApiClient
from podyard.client.referenced import ReferencedObjectError
from podyard.client.services import ApiUnreachableError
from podyard.lib.values import dataclass
from podyard.node.credentials.build import Match, explain_match
from podyard.node.credentials.decide import (
    Credential,
    Keyring,
    Semantics,
    decide_credentials,
)
from podyard.node.credentials.manager import load_credential_sources
from podyard.registry.client import RegistryClient
from podyard.registry.decide import choose_platform
from podyard.registry.errors import RegistryError
from podyard.registry.manifests import Content, ImageIndex, platform_of_machine
from podyard.registry.transport import Exchange


@dataclass(frozen=True, slots=True)
class Candidate:
    """A credential of the rehearsal.

    Attributes:
        order: when it is tried, from 1; ``None`` where it does not match.
        outcome: ``accepted``, ``refused`` …, or empty where it was not tried.
        exchanges: what went over the wire for it.
    """

    source: str
    key: str
    username: str
    match: Match
    order: int | None = None
    outcome: str = ""
    message: str = ""
    exchanges: tuple[Exchange, ...] = ()


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a pull would meet.

    Attributes:
        works: a pull would succeed, as far as names, credentials and platform go.
        platforms: on offer, where the name stands for an index.
        problems: sources that gave nothing and should have.
        unrelated: how many credentials have nothing to do with the image.
    """

    image: str
    repository: str
    works: bool = False
    digest: str = ""
    server: str = ""
    size_bytes: int = 0
    node_platform: str = ""
    platforms: tuple[str, ...] = ()
    message: str = ""
    candidates: tuple[Candidate, ...] = ()
    problems: tuple[str, ...] = ()
    unrelated: int = 0


@dataclass(frozen=True, slots=True)
class Who:
    """For whom to rehearse.

    Attributes:
        namespace: whose pull secrets count; empty for the node's credentials alone.
        service_account: whose ``imagePullSecrets``.
    """

    namespace: str = ""
    service_account: str = "default"


_Try: TypeAlias = tuple[Candidate, ImageAuth | None]


@dataclass(frozen=True, slots=True)
class _Loaded:
    credentials: tuple[Credential, ...]
    ordered: tuple[Credential, ...]
    problems: tuple[str, ...]


class _AdminObjects:
    """Reads what a Pod refers to, as the admin."""

    def __init__(self, client: HttpApiClient | None) -> None:
        self._client = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it does not exist."""
        if self._client is None:
            return None
        try:
            return await self._client.get(kind, name, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise ReferencedObjectError(error.message) from error


async def rehearse(config: Config, image: str, who: Who) -> Rehearsal:
    """Go through a pull of an image without pulling it.

    Raises:
        RegistriesError: the image name is none, or whose it is cannot be read.
    """
    try:
        ref = parse_image_name(image)
    except ImageRefError as error:
        raise RegistriesError(str(error)) from error
    loaded = await _load(config, ref, who)
    semantics = _semantics(config)
    ordered = {id(credential): n for n, credential in enumerate(loaded.ordered, 1)}
    candidates = [
        Candidate(
            source=credential.origin,
            key=credential.key,
            username=credential.auth.username,
            match=explain_match(credential.key, ref.repository, semantics=semantics),
            order=ordered.get(id(credential)),
        )
        for credential in loaded.credentials
    ]
    known = dict(zip(map(id, loaded.credentials), candidates, strict=True))
    tries: list[_Try] = [
        (known[id(credential)], credential.auth) for credential in loaded.ordered
    ]
    if not tries:
        nobody = Match("match", "there are no credentials for it")
        tries.append((Candidate("anonymous", "", "", nobody, order=1), None))
    rehearsal = await _try_all(config, ref, tries)
    tried = rehearsal.candidates
    near = tuple(item for item in candidates if item.match.verdict == "near")
    return replace(
        rehearsal,
        image=image,
        candidates=tried + near,
        problems=loaded.problems,
        unrelated=len(candidates) - len(loaded.ordered) - len(near),
    )


def _semantics(config: Config) -> Semantics:
    return "upstream" if config.semantics == "upstream" else "documented"


async def _load(config: Config, ref: ImageRef, who: Who) -> _Loaded:
    if not who.namespace:
        return await _load_for(config, ref, None, _pod(who, ()))
    try:
        async with admin_client(config) as client:
            names = await _pull_secrets(client, who)
            return await _load_for(config, ref, client, _pod(who, names))
    except ApiUnreachableError as error:
        raise RegistriesError(f"the API server does not answer: {error}") from error
    except (AdminError, ApiError) as error:
        raise RegistriesError(str(error)) from error


async def _pull_secrets(client: HttpApiClient, who: Who) -> tuple[str, ...]:
    account = await client.get(SERVICE_ACCOUNT, who.service_account, who.namespace)
    named = account.get("imagePullSecrets") or ()
    return tuple(str(item.get("name") or "") for item in named)


def _pod(who: Who, pull_secrets: Sequence[str]) -> Pod:
    return Pod.of(
        {
            "metadata": {"name": "rehearsal", "namespace": who.namespace},
            "spec": {
                "serviceAccountName": who.service_account,
                "imagePullSecrets": [{"name": name} for name in pull_secrets],
            },
        }
    )


async def _load_for(
    config: Config, ref: ImageRef, client: HttpApiClient | None, pod: Pod
) -> _Loaded:
    try:
        context = await asyncio.to_thread(source_context, config, _AdminObjects(client))
    except ConfigError as error:
        raise RegistriesError(str(error)) from error
    sources = sorted(load_credential_sources(), key=lambda s: (s.rank, s.name))
    loaded = [
        await source.make(context).load(pod, ref.repository) for source in sources
    ]
    return _Loaded(
        tuple(item for found in loaded for item in found.credentials),
        decide_credentials(
            ref.repository,
            [Keyring(found.credentials) for found in loaded],
            semantics=_semantics(config),
        ),
        tuple(problem.message for found in loaded for problem in found.problems),
    )


@dataclass(slots=True)
class _Wire:
    """Collects what was exchanged, one candidate at a time."""

    exchanges: list[Exchange] = field(default_factory=list)

    def take(self) -> tuple[Exchange, ...]:
        taken = tuple(self.exchanges)
        self.exchanges.clear()
        return taken


async def _try_all(config: Config, ref: ImageRef, tries: Sequence[_Try]) -> Rehearsal:
    """Try candidates in order until one is accepted, as the node does."""
    wire = _Wire()
    done: list[Candidate] = []
    result: Rehearsal | None = None
    client = await registry_client(config, on_exchange=wire.exchanges.append)
    async with client:
        for candidate, auth in tries:
            if result is not None:
                done.append(replace(candidate, outcome="not needed"))
                continue
            try:
                result = await _look(client, ref, auth)
            except RegistryError as error:
                done.append(
                    replace(
                        candidate,
                        outcome=error.kind,
                        message=str(error),
                        exchanges=wire.take(),
                    )
                )
            else:
                done.append(
                    replace(candidate, outcome="accepted", exchanges=wire.take())
                )
    failed = done[-1].message
    rehearsal = result or Rehearsal("", ref.repository, message=failed)
    return replace(rehearsal, candidates=tuple(done))


async def _look(
    client: RegistryClient, ref: ImageRef, auth: ImageAuth | None
) -> Rehearsal:
    """Fetch what a name stands for, and choose the platform.

    Raises:
        RegistryError: the registry does not give it.
    """
    node = platform_of_machine(platform.machine())
    fetched = await client.get_manifest(ref, auth)
    seen = Rehearsal(
        "",
        ref.repository,
        works=True,
        digest=fetched.head.digest,
        server=fetched.head.server,
        node_platform=str(node),
    )
    content = fetched.content
    if isinstance(content, ImageIndex):
        offered = tuple(
            dict.fromkeys(
                str(item.platform)
                for item in content.manifests
                if item.platform and item.is_image
            )
        )
        chosen = choose_platform(content, node)
        seen = replace(seen, platforms=offered)
        if not isinstance(chosen, Content):
            return replace(seen, works=False, message=chosen.message)
        inner = await client.get_manifest(
            replace(ref, tag="", digest=chosen.digest), auth
        )
        content = inner.content
        if isinstance(content, ImageIndex):
            return replace(
                seen, works=False, message="the index holds another index for this node"
            )
    return replace(seen, size_bytes=content.size)
