"""What ``podyard explain``, ``hooks`` and ``runtime`` ask the API for."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import orjson

import podyard.scheduler.plugins
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import (
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    RUNTIME_CLASS,
    STORAGE_CLASS,
)
from podyard.api.storage import PodClaim, PodStorage, claims_of, class_of
from podyard.app.admin import AdminError, admin_client
from podyard.app.config import Config
from podyard.client.http import HttpApiClient
from podyard.client.services import ApiUnreachableError
from podyard.lib.parts import load_parts
from podyard.scheduler.explain import explain_schedule
from podyard.scheduler.parts import SchedulerPlugin


@asynccontextmanager
async def _client(config: Config) -> AsyncGenerator[HttpApiClient, None]:
    try:
        async with admin_client(config) as client:
            yield client
    except ApiUnreachableError as error:
        raise AdminError(f"the API server does not answer: {error}") from error


async def explanation_of(
    config: Config, namespace: str, pod: str, *, part: str = "", secrets: bool = False
) -> Document:
    """Return what a node did for a Pod.

    Args:
        config: the instance.
        namespace: the Pod's.
        pod: its name; it may be gone.
        part: only this of it (``pulls``, ``environment`` …).
        secrets: show values of Secrets too, as far as the user may get them.

    Raises:
        AdminError: the API is away.
        ApiError: the API refuses, or nothing is known of the Pod.
    """
    query = {"part": part} if part else {}
    if secrets:
        query["showSecrets"] = "true"
    async with _client(config) as client:
        body = await client.get_raw(POD.path(namespace, pod, "explain"), query)
    found: Document = orjson.loads(body)
    return found


async def schedule_of(config: Config, namespace: str, name: str) -> Document:
    """Return why a Pod runs where it does, or nowhere.

    Raises:
        AdminError: the API is away.
        ApiError: the API refuses.
        QuantityError: an amount is no quantity.
    """
    async with _client(config) as client:
        pod = await client.get(POD, name, namespace)
        class_name = (pod.get("spec") or {}).get("runtimeClassName")
        nodes = (await client.list(NODE))["items"]
        pods = (await client.list(POD))["items"]
        runtime_class = None
        if class_name:
            runtime_class = await _get_class(client, class_name)
        storage = await _get_storage(client, pod) if claims_of(pod) else None
        namespaces = (await client.list(NAMESPACE))["items"]
    plugins = load_parts(podyard.scheduler.plugins, SchedulerPlugin)
    return explain_schedule(
        pod,
        nodes,
        pods,
        plugins,
        runtime_class=runtime_class,
        storage=storage,
        labels_of={
            one["metadata"]["name"]: one["metadata"].get("labels") or {}
            for one in namespaces
        },
    )


async def _get_storage(client: HttpApiClient, pod: Document) -> PodStorage:
    """Return what is known of a Pod's claims."""
    namespace = str(pod["metadata"]["namespace"])
    claims = _by_name(await client.list(PERSISTENT_VOLUME_CLAIM, namespace))
    volumes = _by_name(await client.list(PERSISTENT_VOLUME))
    classes = _by_name(await client.list(STORAGE_CLASS))
    return PodStorage(
        tuple(
            PodClaim(
                name,
                claim := claims.get(name),
                volumes.get(((claim or {}).get("spec") or {}).get("volumeName") or ""),
                classes.get(class_of(claim or {})),
            )
            for name in claims_of(pod)
        ),
        tuple(volumes.values()),
    )


def _by_name(found: Document) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in found["items"]}


async def _get_class(client: HttpApiClient, name: str) -> Document | None:
    try:
        return await client.get(RUNTIME_CLASS, name)
    except ApiError as error:
        if error.code == 404:
            return None
        raise


async def hook_logs_of(
    config: Config, namespace: str, name: str, *, container: str = ""
) -> list[tuple[str, bytes]]:
    """Return what the hooks of a Pod's containers have put out, by container.

    Raises:
        AdminError: the API is away.
        ApiError: the API refuses.
    """
    async with _client(config) as client:
        names = [container]
        if not container:
            spec = (await client.get(POD, name, namespace)).get("spec") or {}
            names = [
                str(one["name"])
                for kind in ("initContainers", "containers")
                for one in spec.get(kind) or ()
                if one.get("lifecycle")
            ]
        path = POD.path(namespace, name, "hooklog")
        return [
            (one, await client.get_raw(path, {"container": one, "timestamps": "true"}))
            for one in names
        ]


async def handlers_of(config: Config) -> list[Document]:
    """Return every handler that a node's runtime, a class or the config names.

    Raises:
        AdminError: the API is away.
        ApiError: the API refuses.
    """
    async with _client(config) as client:
        nodes = (await client.list(NODE))["items"]
        classes = (await client.list(RUNTIME_CLASS))["items"]
    configured = [handler.name for handler in config.runtimes]
    return build_handlers(nodes, classes, configured)


def build_handlers(
    nodes: list[Document], classes: list[Document], configured: list[str]
) -> list[Document]:
    """Return the handlers as ``podyard runtime ls`` shows them. Pure.

    Args:
        nodes: all nodes; each tells what its runtime accepts.
        classes: all RuntimeClasses.
        configured: names in ``runtimes:`` of the config.
    """
    told = {
        str(node["metadata"]["name"]): {
            str(one.get("name") or ""): one.get("features") or {}
            for one in (node.get("status") or {}).get("runtimeHandlers") or ()
        }
        for node in nodes
    }
    users: dict[str, list[str]] = {}
    for one in classes:
        users.setdefault(str(one.get("handler")), []).append(one["metadata"]["name"])
    names = {name for handlers in told.values() for name in handlers}
    return [
        {
            "handler": name,
            "configured": name in configured,
            "nodes": {
                node: ("accepts" if name in handlers else "refuses")
                if handlers
                else "unknown"
                for node, handlers in told.items()
            },
            "features": sorted(
                {
                    feature
                    for handlers in told.values()
                    for feature, has in handlers.get(name, {}).items()
                    if has
                }
            ),
            "runtimeClasses": sorted(users.get(name, [])),
        }
        for name in sorted(names | set(users) | set(configured))
    ]
