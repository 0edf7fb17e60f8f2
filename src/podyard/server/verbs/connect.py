"""CONNECT: logs, exec, attach, port-forward and node proxy, answered by the node.

Source: kubernetes ``pkg/registry/core/pod/strategy.go`` (LogLocation,
streamLocation) and ``pkg/registry/core/node/strategy.go`` (v1.36).
"""

from typing import Final
from urllib.parse import quote, urlencode

from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    FieldError,
    bad_request,
    forbidden_field,
    invalid,
    invalid_object,
    not_found,
)
from podyard.api.scheme import NODE, POD
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.call import Answer, Call, Forward, NodeTarget, Reply, Tunnel
from podyard.server.context import ServerContext

_DEFAULT_PORT: Final = 10250
_KUBELET_FLAGS: Final = {
    "stdin": "input",
    "stdout": "output",
    "stderr": "error",
    "tty": "tty",
}
#: Log options that go to the node as they are, and the least each may be.
_LOG_NUMBERS: Final = {"tailLines": 0, "sinceSeconds": 1, "limitBytes": 1}
_LOG_FLAGS: Final = ("follow", "previous", "timestamps")
_OPTIONS_KINDS: Final = {
    "exec": "PodExecOptions",
    "attach": "PodAttachOptions",
    "portforward": "PodPortForwardOptions",
}


async def read_log(context: ServerContext, call: Call) -> Answer:
    """Answer a container's log.

    Raises:
        ApiError: 400, 404 or 422.
    """
    pod = await _pod(context, call)
    _check_log_options(call)
    container = choose_container(pod, call.info.param("container"))
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        return Reply(b"", content_type="text/plain")
    query = [(name, "true") for name in _LOG_FLAGS if call.info.flag(name)]
    query.extend(
        (name, call.info.param(name))
        for name in (*_LOG_NUMBERS, "sinceTime", "stream")
        if call.info.param(name)
    )
    path = _path("containerLogs", pod, container)
    if query:
        path += f"?{urlencode(query)}"
    return Forward(await dial_target(context, node, path))


def _check_log_options(call: Call) -> None:
    errors: list[FieldError] = []
    for name, least in _LOG_NUMBERS.items():
        text = call.info.param(name)
        if not text:
            continue
        try:
            number = int(text)
        except ValueError as error:
            message = f'strconv.ParseInt: parsing "{text}": invalid syntax'
            raise bad_request(message) from error
        if number < least:
            bound = "greater than or equal to 0" if least == 0 else "greater than 0"
            errors.append(invalid(name, number, f"must be {bound}"))
    if call.info.param("sinceSeconds") and call.info.param("sinceTime"):
        detail = "at most one of `sinceTime` or `sinceSeconds` may be specified"
        errors.append(forbidden_field("", detail))
    if errors:
        raise invalid_object("", "PodLogOptions", call.info.name, errors)


async def exec_in(context: ServerContext, call: Call) -> Answer:
    """Open a tunnel to a new process in a container.

    Raises:
        ApiError: 400 or 404.
    """
    pod, node = await _connectable(context, call)
    container = choose_container(pod, call.info.param("container"))
    query = _stream_query(call)
    query.extend(("command", word) for word in call.info.query.get("command", ()))
    path = f"{_path('exec', pod, container)}?{urlencode(query)}"
    return Tunnel(await dial_target(context, node, path))


async def attach_to(context: ServerContext, call: Call) -> Answer:
    """Open a tunnel to a container's first process.

    Raises:
        ApiError: 400 or 404.
    """
    pod, node = await _connectable(context, call)
    container = choose_container(pod, call.info.param("container"))
    path = f"{_path('attach', pod, container)}?{urlencode(_stream_query(call))}"
    return Tunnel(await dial_target(context, node, path))


async def forward_ports(context: ServerContext, call: Call) -> Answer:
    """Open a tunnel to a Pod's ports.

    Raises:
        ApiError: 400 or 404.
    """
    pod, node = await _connectable(context, call)
    path = _path("portForward", pod)
    ports = call.info.query.get("ports", ())
    if ports:
        path += f"?{urlencode({'port': ','.join(ports)})}"
    return Tunnel(await dial_target(context, node, path))


async def proxy_node(context: ServerContext, call: Call) -> Answer:
    """GET a path of a node's own endpoint.

    Raises:
        ApiError: 400, 404 or 405.
    """
    if call.info.verb != "get":
        raise ApiError(405, "MethodNotAllowed", "only GET is proxied to nodes")
    name, port = _split_node(call.info.name)
    path = "/" + "/".join(quote(part) for part in call.info.rest)
    query = dict(call.info.query)
    if call.info.rest[:1] == ("explain",):
        # Whose Secrets may be shown is decided by pods/explain alone.
        query.pop("showSecret", None)
    if query:
        path += f"?{urlencode(query, doseq=True)}"
    return Forward(await dial_target(context, name, path, port=port))


def _split_node(text: str) -> tuple[str, int]:
    """Read ``NAME``, ``NAME:PORT`` or ``SCHEME:NAME:PORT``; port 0 is its own."""
    parts = text.split(":")
    if len(parts) == 3:
        parts = parts[1:]
    port = parts[1] if len(parts) == 2 else ""
    if len(parts) > 2 or (port and not port.isdigit()):
        raise bad_request(f'invalid node request "{text}"')
    return parts[0], int(port or 0)


async def _connectable(context: ServerContext, call: Call) -> tuple[Document, str]:
    pod = await _pod(context, call)
    await _admit(context, call)
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise bad_request(f"pod {call.info.name} does not have a host assigned")
    return pod, node


async def _admit(context: ServerContext, call: Call) -> None:
    subresource = call.info.subresource
    request = AdmissionRequest(
        operation=Operation.CONNECT,
        kind=POD,
        namespace=call.info.namespace,
        name=call.info.name,
        user=call.user,
        subresource=subresource,
        options={"kind": _OPTIONS_KINDS[subresource], "apiVersion": "v1"},
        warnings=call.warnings,
    )
    await context.admission.mutate(request)
    await context.admission.validate(request)


async def _pod(context: ServerContext, call: Call) -> Document:
    pod = await context.registry.get(POD, call.info.namespace, call.info.name)
    if pod is None:
        raise not_found("", POD.resource, call.info.name)
    return pod


def _stream_query(call: Call) -> list[tuple[str, str]]:
    return [
        (theirs, "1") for ours, theirs in _KUBELET_FLAGS.items() if call.info.flag(ours)
    ]


def _path(what: str, pod: Document, *more: str) -> str:
    metadata = pod["metadata"]
    return node_path(what, metadata["namespace"], metadata["name"], *more)


def node_path(*parts: str) -> str:
    """Return a path of a node's own endpoint."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def choose_container(pod: Document, wanted: str) -> str:
    """Return the container that is meant; the only one needs no name.

    Raises:
        ApiError: 400, there is no such container, or several to choose from.
    """
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    kinds = {
        kind: [entry["name"] for entry in spec.get(kind) or ()]
        for kind in ("containers", "initContainers", "ephemeralContainers")
    }
    if wanted:
        if not any(wanted in names for names in kinds.values()):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(kinds["containers"]) == 1:
        return str(kinds["containers"][0])
    text = f"a container name must be specified for pod {name}"
    if kinds["containers"]:
        text += f", choose one of: [{' '.join(kinds['containers'])}]"
    if kinds["initContainers"]:
        text += f" or one of the init containers: [{' '.join(kinds['initContainers'])}]"
    raise bad_request(text)


async def dial_target(
    context: ServerContext, node_name: str, path: str, *, port: int = 0
) -> NodeTarget:
    """Return where a node's own endpoint listens.

    Raises:
        ApiError: 404 there is no such node, 500 it has not said where it listens.
    """
    node = await context.registry.get(NODE, "", node_name)
    if node is None:
        raise not_found("", NODE.resource, node_name)
    status = node.get("status") or {}
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    host = _address(status.get("addresses") or [])
    if not host:
        raise ApiError(
            500,
            "InternalError",
            f'Internal error occurred: no preferred addresses found for node "'
            f'{node_name}"; known addresses: []',
        )
    return NodeTarget(
        node_name, host, port or int(endpoint.get("Port") or _DEFAULT_PORT), path
    )


def _address(addresses: list[Document]) -> str:
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        for entry in addresses:
            if entry.get("type") == kind:
                return str(entry.get("address") or "")
    return ""
