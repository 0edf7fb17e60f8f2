"""The admin's few errands at the API, for people without kubectl: apply and logs."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Final

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import POD, Kind, find_kind_by_name
from podyard.app.config import Config
from podyard.client.http import HttpApiClient
from podyard.client.kubeconfig import KubeconfigError, load_kubeconfig
from podyard.client.services import ApiUnreachableError, PatchType
from podyard.lib.yaml_json import YamlError, load_all_yaml

#: Unknown fields are refused, as kubectl has it.
_STRICT: Final = "Strict"


class AdminError(Exception):
    """The errand cannot be done; the message says why and what to do."""


def admin_client(config: Config) -> HttpApiClient:
    """Return a client with the instance's admin kubeconfig.

    Raises:
        AdminError: there is none, or it may not be read.
    """
    path = config.data_dir / "kubeconfig"
    if not path.exists():
        raise AdminError(f"{path} does not exist: start it first (podyard up -d)")
    try:
        return HttpApiClient(load_kubeconfig(path), user_agent="podyard-cli")
    except KubeconfigError as error:
        raise AdminError(str(error)) from error


def read_manifests(text: str, source: str) -> list[Document]:
    """Return the objects of a YAML or JSON text; Lists are taken apart.

    Raises:
        AdminError: the text is malformed; the message names ``source``.
    """
    try:
        contents = list(load_all_yaml(text))
    except YamlError as error:
        reason = str(error).removeprefix("yaml: ")
        raise AdminError(f"{source}: is not valid YAML: {reason}") from error
    documents: list[Document] = []
    for content, doubled in contents:
        if doubled:
            raise AdminError(f'{source}: key "{doubled[0]}" stands twice in a map')
        if not isinstance(content, dict) or not content.get("kind"):
            raise AdminError(f"{source}: each document must be an object with a kind")
        if content["kind"] == "List":
            documents += content.get("items") or []
        else:
            documents.append(content)
    return documents


async def apply(
    config: Config,
    documents: Iterable[Document],
    *,
    namespace: str,
    wait_s: float | None,
    say: Callable[[str], None],
) -> None:
    """Create each object, or merge it into the one that exists.

    Args:
        config: the instance.
        documents: the objects.
        namespace: for namespaced objects that name none.
        wait_s: seconds to wait until the Pods among them are Ready or have
            succeeded; ``None`` does not wait.
        say: told a line for each object.

    Raises:
        AdminError: a kind is unknown, the API is away, or a Pod is not Ready in time.
        ApiError: the API refuses an object.
    """
    try:
        async with admin_client(config) as client:
            pods = []
            for document in documents:
                kind = _kind_of(document)
                where = _namespace_of(document, kind, namespace)
                name = (document.get("metadata") or {}).get("name") or ""
                done = await _apply_one(client, kind, document, name, where)
                say(f"{kind.qualified_resource}/{name} {done}")
                if kind is POD:
                    pods.append((where, name))
            if wait_s is not None:
                for where, name in pods:
                    await _wait_ready(client, where, name, wait_s)
    except ApiUnreachableError as error:
        raise AdminError(f"the API server does not answer: {error}") from error


async def log_of(config: Config, *, namespace: str, pod: str, container: str) -> bytes:
    """Return a Pod's log as it stands.

    Raises:
        AdminError: the API is away.
        ApiError: the API refuses.
    """
    query = {"container": container} if container else {}
    try:
        async with admin_client(config) as client:
            return await client.get_raw(POD.path(namespace, pod, "log"), query)
    except ApiUnreachableError as error:
        raise AdminError(f"the API server does not answer: {error}") from error


def _kind_of(document: Document) -> Kind:
    api_version, name = document.get("apiVersion", ""), document["kind"]
    kind = find_kind_by_name(str(api_version), str(name))
    if kind is None:
        raise AdminError(f'no kind "{name}" in version "{api_version}"')
    return kind


def _namespace_of(document: Document, kind: Kind, default: str) -> str:
    if not kind.namespaced:
        return ""
    return str((document.get("metadata") or {}).get("namespace") or default)


async def _apply_one(
    client: HttpApiClient, kind: Kind, document: Document, name: str, namespace: str
) -> str:
    try:
        before = await client.get(kind, name, namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        await client.create(kind, document, namespace, field_validation=_STRICT)
        return "created"
    # A copy without what only the server sets.
    patch: Document = orjson.loads(orjson.dumps(document))
    patch.pop("status", None)
    after = await client.patch(
        kind,
        name,
        patch,
        namespace,
        patch_type=PatchType.STRATEGIC,
        field_validation=_STRICT,
    )
    same = _version(before) == _version(after)
    return "unchanged" if same else "configured"


def _version(document: Document) -> str:
    return str(document["metadata"].get("resourceVersion"))


async def _wait_ready(
    client: HttpApiClient, namespace: str, name: str, wait_s: float
) -> None:
    selector = f"metadata.name={name}"
    last: Document = {}
    try:
        async with (
            asyncio.timeout(wait_s),
            aclosing(client.watch(POD, namespace, field_selector=selector)) as events,
        ):
            async for event in events:
                last = event.object
                if _is_ready(last):
                    return
    except TimeoutError as error:
        raise AdminError(
            f'Pod "{name}" is not Ready within {wait_s:g} s: {_why(last)}'
        ) from error
    raise AdminError(f'the watch of Pod "{name}" ended early')


def _is_ready(pod: Document) -> bool:
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _why(pod: Document) -> str:
    status = pod.get("status") or {}
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            reason = waiting.get("reason") or "waiting"
            message = waiting.get("message") or ""
            return f"{container['name']}: {reason} {message}".rstrip()
    return f"phase {status.get('phase') or 'unknown'}"
