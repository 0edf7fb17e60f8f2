"""What a thousand probes a second cost the agent."""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import platform
import random
import resource
import time
from datetime import timedelta

from benchmarks.figures import Report
from podyard.api.core_v1 import Pod
from podyard.api.observed import ContainerState, ContainerStatus, ObservedPod
from podyard.client.grpc_health import check_health
from podyard.lib.clock import SystemClock
from podyard.lib.parts import load_parts
from podyard.node.probes import handlers
from podyard.node.probes.handler import ProbeHandler
from podyard.node.probes.manager import ProbeManager
from podyard.testing.fake_cri import FakeRuntime

#: Containers that are probed; each once a second by HTTP and once by TCP.
CONTAINERS = 500


class _Answering(asyncio.Protocol):
    """Answers every request with 200 and counts connections."""

    accepted = 0
    asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).accepted += 1
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        type(self).asked += 1
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        )
        self._transport.close()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Answering, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv):
            pipe.send((_Answering.accepted, _Answering.asked))

    with contextlib.suppress(EOFError, KeyboardInterrupt):
        asyncio.run(serve())


async def _probe(
    port: int, pipe: multiprocessing.connection.Connection, seconds: float
) -> tuple[float, float, int]:
    """Return connections a second, the share of a core, and requests answered."""
    clock = SystemClock()
    told: list[str] = []
    manager = ProbeManager(
        FakeRuntime(),
        load_parts(handlers, ProbeHandler),
        grpc_check=check_health,
        record=lambda _pod, _kind, _reason, message, _path: told.append(message),
        clock=clock,
        chance=random.Random(1),
    )
    started_at = clock.now() - timedelta(minutes=1)
    every_second = {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.run())
        await asyncio.sleep(0)
        for number in range(CONTAINERS):
            name, uid = f"probed-{number}", f"uid-{number}"
            pod = Pod.of(
                {
                    "metadata": {"name": name, "namespace": "default", "uid": uid},
                    "spec": {
                        "containers": [
                            {
                                "name": "main",
                                "image": "none",
                                "livenessProbe": {
                                    "httpGet": {"path": "/healthz", "port": port},
                                    **every_second,
                                },
                                "readinessProbe": {
                                    "tcpSocket": {"port": port},
                                    **every_second,
                                },
                            }
                        ]
                    },
                }
            )
            container = ContainerStatus(
                id=f"id-{number}",
                name="main",
                sandbox_id=f"sandbox-{number}",
                attempt=0,
                state=ContainerState.RUNNING,
                created_at=started_at,
                started_at=started_at,
            )
            manager.add_pod(pod)
            observed = ObservedPod(uid, name, "default", (), (container,))
            manager.look(
                pod, observed, ("127.0.0.1",), held=frozenset(), terminating=False
            )
        await asyncio.sleep(3)
        pipe.send("count")
        before = await asyncio.to_thread(pipe.recv)
        cpu_s, begin = _cpu_s(), time.perf_counter()
        await asyncio.sleep(seconds)
        cpu_s, took_s = _cpu_s() - cpu_s, time.perf_counter() - begin
        pipe.send("count")
        after = await asyncio.to_thread(pipe.recv)
        running.cancel()
    if told:
        raise RuntimeError(f"{len(told)} probes failed, such as {told[0]}")
    return (after[0] - before[0]) / took_s, cpu_s / took_s, after[1] - before[1]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure_probes(report: Report, seconds: float) -> None:
    """(h) 500 httpGet and 500 tcpSocket probes a second, answered elsewhere."""
    loops = {"asyncio": asyncio.new_event_loop}
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - optional

        loops = {"uvloop": uvloop.new_event_loop, **loops}
    for name, factory in loops.items():
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        server = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        server.start()
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                rate, share, asked = runner.run(_probe(ours.recv(), ours, seconds))
        finally:
            server.terminate()
            server.join()
        report.add(
            f"(h) 1,000 httpGet and tcpSocket probes a second, {name}",
            f"{share:.1%} of a core",
            f"{rate:,.0f} /s made, {asked / seconds:,.0f} of them HTTP (aim 25 %)",
        )


if __name__ == "__main__":
    print(f"Python {platform.python_version()}")
    measure_probes(Report(), 10)
