"""The node's HTTPS door. Paths are those of the kubelet's own server.

Source: ``pkg/kubelet/server/server.go``. There is no read-only port, and every path
needs a client certificate whose user may use the node's API.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson
import structlog
from aiohttp import web

from podyard.api.core_v1 import Pod, format_time
from podyard.api.documents import Document
from podyard.api.identity import User
from podyard.api.observed import ContainerState, ContainerStatus
from podyard.cri.services import CRIError, CRINotFoundError, RuntimeService
from podyard.lib.clock import Clock
from podyard.lib.metrics import Metric, to_text
from podyard.lib.values import dataclass
from podyard.node.endpoints.build import (
    LogOptions,
    parse_log_options,
    parse_stream_options,
)
from podyard.node.endpoints.explain import PARTS, PodExplainer
from podyard.node.endpoints.logs import LogSource, read_log
from podyard.node.endpoints.parts import EndpointError, PodDirectory
from podyard.node.endpoints.stats import Summarizer
from podyard.node.endpoints.streaming import (
    check_upgrade,
    stream_command,
    stream_ports,
)
from podyard.node.hooks.parts import LOG_NAME

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class EndpointsConfig:
    """What the endpoints need to know.

    Attributes:
        node_name: the Node's name.
        logs_dir: the root of all container logs.
        config_document: what ``/configz`` shows.
    """

    node_name: str
    logs_dir: Path
    config_document: Document


class NodeEndpoints:
    """Serves logs, exec, attach, port-forward, pods, stats, metrics and health.

    Args:
        config: names and paths.
        runtime: the CRI runtime.
        pods: the Pods of this node.
        may: whether a user may use a subresource of this node
            (``nodes/proxy``, ``nodes/stats`` …).
        metrics: what ``/metrics`` shows.
        healthy: ``None``, or the reason why the agent is not well.
        clock: the time.
        explainer: answers what was done for a Pod; ``None`` answers 404.
    """

    def __init__(
        self,
        config: EndpointsConfig,
        *,
        runtime: RuntimeService,
        pods: PodDirectory,
        may: Callable[[User, str], bool],
        metrics: Callable[[], tuple[Metric, ...]],
        healthy: Callable[[], str | None],
        clock: Clock,
        explainer: PodExplainer | None = None,
    ) -> None:
        self._config = config
        self._explainer = explainer
        self._runtime = runtime
        self._pods = pods
        self._may = may
        self._metrics = metrics
        self._healthy = healthy
        self._clock = clock
        self._summarizer = Summarizer(config.node_name, runtime, pods)
        self._runner: web.AppRunner | None = None

    async def start(
        self, addresses: tuple[str, ...], port: int, tls: ssl.SSLContext
    ) -> int:
        """Listen on each address; return the port (a free one where 0 was given).

        Raises:
            OSError: an address or the port cannot be had.
        """
        app = web.Application(middlewares=[self._guard])
        for path, subresource, handler in (
            ("/healthz", "healthz", self._health),
            ("/healthz/{check}", "healthz", self._health),
            ("/pods", "pods", self._list_pods),
            ("/runningpods/", "proxy", self._running_pods),
            ("/metrics", "metrics", self._show_metrics),
            ("/stats/summary", "stats", self._summary),
            ("/configz", "configz", self._configz),
            ("/containerLogs/{namespace}/{pod}/{container}", "proxy", self._logs),
            ("/hookLogs/{namespace}/{pod}/{container}", "proxy", self._hook_logs),
            ("/explain/{namespace}/{pod}", "proxy", self._explain),
            ("/exec/{namespace}/{pod}/{container}", "proxy", self._exec),
            ("/exec/{namespace}/{pod}/{uid}/{container}", "proxy", self._exec),
            ("/attach/{namespace}/{pod}/{container}", "proxy", self._attach),
            ("/attach/{namespace}/{pod}/{uid}/{container}", "proxy", self._attach),
            ("/portForward/{namespace}/{pod}", "proxy", self._port_forward),
            ("/portForward/{namespace}/{pod}/{uid}", "proxy", self._port_forward),
        ):
            wrapped = _needs(subresource, handler)
            app.router.add_get(path, wrapped)
            if subresource == "proxy":
                app.router.add_post(path, wrapped)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        for address in addresses:
            site = web.TCPSite(self._runner, address, port, ssl_context=tls)
            await site.start()
            if port == 0:
                port = int(self._runner.addresses[0][1])
        return port

    async def stop(self) -> None:
        """Stop listening and end every stream."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- the door ---

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        subresource = getattr(handler, "subresource", "proxy")
        try:
            user = _peer(request)
            if user is None:
                return web.Response(status=401, text="Unauthorized")
            if not self._may(user, subresource):
                text = (
                    f"Forbidden (user={user.name}, verb={request.method.lower()}, "
                    f"resource=nodes, subresource={subresource})"
                )
                return web.Response(status=403, text=text)
            return await handler(request)
        except EndpointError as error:
            return web.Response(status=error.code, text=error.message)
        except CRINotFoundError as error:
            return web.Response(status=404, text=error.message)
        except CRIError as error:
            return web.Response(status=500, text=error.rpc_text)

    def _pod(self, request: web.Request) -> Pod:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._pods.find_pod(namespace, name)
        uid = request.match_info.get("uid")
        if pod is None or (uid and uid != pod.uid):
            raise EndpointError(404, f'pod "{name}_{namespace}" does not exist')
        return pod

    # --- logs ---

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        name = request.match_info["container"]
        if pod.find_container(name) is None:
            raise EndpointError(
                404, f'container "{name}" not found in pod "{pod.name}"'
            )
        options = parse_log_options(request.query, now=self._clock.now())
        container = await self._logged_container(pod, name, options)
        response = web.StreamResponse()
        response.content_type = "text/plain"
        response.enable_chunked_encoding()
        source = LogSource(self._config.logs_dir, Path(container.log_path))
        chunks = read_log(
            source,
            await source.open(),
            options,
            running=lambda: self._is_running(container.id),
        )
        return await _send(request, response, chunks)

    async def _hook_logs(self, request: web.Request) -> web.StreamResponse:
        """What the exec hooks of a container have put out, as far as it is kept."""
        pod = self._pod(request)
        name = request.match_info["container"]
        if pod.find_container(name) is None:
            raise EndpointError(
                404, f'container "{name}" not found in pod "{pod.name}"'
            )
        options = parse_log_options(request.query, now=self._clock.now())
        response = web.StreamResponse()
        response.content_type = "text/plain"
        logs = self._config.logs_dir
        path = logs / f"{pod.namespace}_{pod.name}_{pod.uid}" / name / LOG_NAME
        source = LogSource(logs, path)
        try:
            file = await source.open()
        except EndpointError as error:
            if error.code != 404:
                raise
            return web.Response(body=b"", content_type="text/plain")
        chunks = read_log(source, file, replace(options, follow=False), running=_never)
        return await _send(request, response, chunks)

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        if self._explainer is None:
            raise EndpointError(404, "this node keeps no records")
        wanted = frozenset(request.query.getall("part", []))
        unknown = wanted - set(PARTS)
        if unknown:
            raise EndpointError(
                400, f"part: {', '.join(sorted(unknown))}: not one of {PARTS}"
            )
        return _json(
            await self._explainer.explain(
                request.match_info["namespace"],
                request.match_info["pod"],
                wanted=wanted,
                shown=frozenset(request.query.getall("showSecret", [])),
            )
        )

    async def _logged_container(
        self, pod: Pod, name: str, options: LogOptions
    ) -> ContainerStatus:
        listed = await self._runtime.list_containers(pod_uid=pod.uid)
        ours = sorted(
            (c for c in listed if c.name == name),
            key=lambda c: c.created_at,
            reverse=True,
        )
        where = f'container "{name}" in pod "{pod.name}"'
        if options.previous:
            # A running or waiting container's forerunner.
            dead = [c for c in ours[1:] if c.state is ContainerState.EXITED]
            if not dead:
                raise EndpointError(
                    400,
                    f'previous terminated container "{name}" in pod "{pod.name}" '
                    "not found",
                )
            return await self._runtime.container_status(dead[0].id)
        started = [c for c in ours if c.state is not ContainerState.CREATED]
        if not started:
            raise EndpointError(
                400, f"{where} is waiting to start: {_waiting_reason(pod, name)}"
            )
        return await self._runtime.container_status(started[0].id)

    async def _is_running(self, container_id: str) -> bool:
        try:
            status = await self._runtime.container_status(container_id)
        except CRINotFoundError:
            return False
        return status.state is ContainerState.RUNNING

    # --- streams ---

    async def _running_container(self, pod: Pod, name: str) -> ContainerStatus:
        if pod.find_container(name) is None:
            raise EndpointError(
                404, f'container "{name}" not found in pod "{pod.name}"'
            )
        for container in await self._runtime.list_containers(pod_uid=pod.uid):
            if container.name == name and container.state is ContainerState.RUNNING:
                return container
        raise EndpointError(
            404, f'container not found ("{name}"): it is not running in "{pod.name}"'
        )

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        check_upgrade(request)
        commands = request.query.getall("command", [])
        options = parse_stream_options(request.query, commands)
        if not options.command:
            raise EndpointError(400, "you must specify a command to exec")
        container = await self._running_container(
            self._pod(request), request.match_info["container"]
        )
        url = await self._runtime.exec_url(
            container.id,
            options.command,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            tty=options.tty,
        )
        return await stream_command(request, url, options)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        check_upgrade(request)
        options = parse_stream_options(request.query, ())
        container = await self._running_container(
            self._pod(request), request.match_info["container"]
        )
        url = await self._runtime.attach_url(
            container.id,
            stdin=options.stdin,
            stdout=options.stdout,
            stderr=options.stderr,
            tty=options.tty,
        )
        return await stream_command(request, url, options)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        check_upgrade(request)
        pod = self._pod(request)
        sandboxes = await self._runtime.list_pod_sandboxes(pod_uid=pod.uid)
        ready = [s for s in sandboxes if s.state.name == "READY"]
        if not ready:
            raise EndpointError(404, f'sandbox of pod "{pod.name}" is not running')
        newest = max(ready, key=lambda s: s.created_at)
        ports = _ports(request)
        url = await self._runtime.port_forward_url(newest.id, ports)
        return await stream_ports(request, url)

    # --- documents ---

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        fault = self._healthy()
        if fault is None:
            return web.Response(text="ok")
        return web.Response(status=500, text=f"unhealthy: {fault}")

    async def _list_pods(self, _request: web.Request) -> web.StreamResponse:
        items = [pod.document for pod in self._pods.all_pods()]
        return _json(_pod_list(items))

    async def _running_pods(self, _request: web.Request) -> web.StreamResponse:
        found: dict[str, Document] = {}
        for container in await self._runtime.list_containers():
            if container.state is not ContainerState.RUNNING:
                continue
            labels = container.labels
            pod = found.setdefault(
                container.pod_uid,
                {
                    "metadata": {
                        "name": labels.get("io.kubernetes.pod.name", ""),
                        "namespace": labels.get("io.kubernetes.pod.namespace", ""),
                        "uid": container.pod_uid,
                    },
                    "spec": {"containers": []},
                    "status": {},
                },
            )
            pod["spec"]["containers"].append(
                {"name": container.name, "image": container.image_id}
            )
        return _json(_pod_list(list(found.values())))

    async def _show_metrics(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=to_text(self._metrics()),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _summary(self, _request: web.Request) -> web.StreamResponse:
        return _json(await self._summarizer.summary(self._clock.now()))

    async def _configz(self, _request: web.Request) -> web.StreamResponse:
        return _json({"kubeletconfig": self._config.config_document})


async def _never() -> bool:
    return False


def _needs(subresource: str, handler: Handler) -> Handler:
    async def wrapped(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    wrapped.subresource = subresource  # type: ignore[attr-defined]
    return wrapped


def _peer(request: web.Request) -> User | None:
    """Return who the client's certificate says it is (verified by TLS)."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport else None
    certificate = tls.getpeercert() if tls else None
    if not certificate:
        return None
    subject = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    names = [value for key, value in subject if key == "commonName"]
    groups = [value for key, value in subject if key == "organizationName"]
    if not names:
        return None
    return User(name=names[0], groups=(*groups, "system:authenticated"))


def _ports(request: web.Request) -> tuple[int, ...]:
    ports: list[int] = []
    for text in request.query.getall("ports", request.query.getall("port", [])):
        for part in text.split(","):
            if not part.isdigit() or not 0 < int(part) < 65536:
                raise EndpointError(400, f'port: "{part}" is no port')
            ports.append(int(part))
    return tuple(ports)


def _waiting_reason(pod: Pod, name: str) -> str:
    for key in ("containerStatuses", "initContainerStatuses"):
        for status in pod.status.get(key) or ():
            if status.get("name") == name:
                waiting = (status.get("state") or {}).get("waiting") or {}
                return str(waiting.get("reason") or "ContainerCreating")
    return "ContainerCreating"


def _pod_list(items: list[Document]) -> Document:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _json(document: Document) -> web.Response:
    return web.Response(
        body=orjson.dumps(document, default=_time), content_type="application/json"
    )


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    raise TypeError(type(value).__name__)


async def _send(
    request: web.Request,
    response: web.StreamResponse,
    chunks: AsyncGenerator[bytes, None],
) -> web.StreamResponse:
    """Stream chunks, each flushed as it comes."""
    async with aclosing(chunks):
        await response.prepare(request)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response
