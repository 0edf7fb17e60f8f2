"""CONNECT: what a node did for a Pod and why, and what its hooks have put out.

Two subresources of Pods that Kubernetes does not have. The node answers; whether
values of Secrets may be shown is decided here, Secret by Secret, by whether the user
may get them.
"""

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlencode

import orjson

from podyard.api.documents import Document
from podyard.api.errors import ApiError, bad_request, not_found
from podyard.api.scheme import NODE, POD
from podyard.server.authz.decide import containers
from podyard.server.build import RequestInfo
from podyard.server.call import Answer, Call, Forward, Reply
from podyard.server.context import ServerContext
from podyard.server.verbs.connect import choose_container, dial_target, node_path

_LOG_OPTIONS = ("timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes")


async def explain_pod(context: ServerContext, call: Call) -> Answer:
    """Answer what a node did for a Pod, also for one that is gone.

    Raises:
        ApiError: 404.
    """
    info = call.info
    pod = await context.registry.get(POD, info.namespace, info.name)
    if pod is None:
        node = info.param("node") or await _only_node(context)
        if not node:
            raise not_found("", POD.resource, info.name)
    else:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
    if not node:
        return Reply(orjson.dumps(_unbound(info)))
    query = [("part", part) for part in info.query.get("part", ())]
    if pod is not None and info.flag("showSecrets"):
        shown = [name async for name in _readable_secrets(context, call, pod)]
        query.extend(("showSecret", name) for name in shown)
    path = node_path("explain", info.namespace, info.name)
    if query:
        path += f"?{urlencode(query)}"
    return Forward(await dial_target(context, node, path))


async def read_hook_log(context: ServerContext, call: Call) -> Answer:
    """Answer what a container's exec hooks have put out.

    It may hold whatever a log holds, so the permission to read logs is needed, too.

    Raises:
        ApiError: 400, 403 or 404.
    """
    info = call.info
    await context.check_access(call.user, _asking("pods", info.name, info, "log"))
    pod = await context.registry.get(POD, info.namespace, info.name)
    if pod is None:
        raise not_found("", POD.resource, info.name)
    container = choose_container(pod, info.param("container"))
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    if not node:
        return Reply(b"", content_type="text/plain")
    if info.flag("follow"):
        raise bad_request("hook logs cannot be followed: ask again")
    query = [(name, info.param(name)) for name in _LOG_OPTIONS if info.param(name)]
    path = node_path("hookLogs", info.namespace, info.name, container)
    if query:
        path += f"?{urlencode(query)}"
    return Forward(await dial_target(context, node, path))


async def _readable_secrets(
    context: ServerContext, call: Call, pod: Document
) -> AsyncIterator[str]:
    """Yield the Secrets of a Pod's variables that the user may get."""
    for name in sorted(set(_env_secrets(pod))):
        try:
            asked = _asking("secrets", name, call.info)
            await context.check_access(call.user, asked)
        except ApiError as error:
            if error.code != 403:
                raise
            call.warnings.append(f'values of secret "{name}" stay hidden: {error}')
            continue
        yield name


def _env_secrets(pod: Document) -> Iterator[str]:
    for container in containers(pod.get("spec") or {}):
        for variable in container.get("env") or ():
            selector = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
            if selector.get("name"):
                yield str(selector["name"])
        for source in container.get("envFrom") or ():
            reference = source.get("secretRef") or {}
            if reference.get("name"):
                yield str(reference["name"])


def _asking(
    resource: str, name: str, info: RequestInfo, subresource: str = ""
) -> RequestInfo:
    path = f"/api/v1/namespaces/{info.namespace}/{resource}/{name}"
    if subresource:
        path += f"/{subresource}"
    return RequestInfo(
        verb="get",
        path=path,
        is_resource_request=True,
        version="v1",
        resource=resource,
        subresource=subresource,
        namespace=info.namespace,
        name=name,
    )


async def _only_node(context: ServerContext) -> str:
    nodes = await context.registry.list(NODE, "")
    return str(nodes[0]["metadata"]["name"]) if len(nodes) == 1 else ""


def _unbound(info: RequestInfo) -> Document:
    return {
        "kind": "PodExplanation",
        "apiVersion": "podyard.dev/v1",
        "metadata": {"namespace": info.namespace, "name": info.name},
        "node": "",
        "gone": False,
        "pulls": [],
        "hooks": [],
        "stops": [],
    }
