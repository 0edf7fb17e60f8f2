"""``python -m benchmarks.services``: Services and DNS of one instance, in figures.

200 Services of 5 ports each: how long nft takes for all of them and for one change,
how long a change takes from the API to the kernel, what DNS answers cost, and how much
slower Pods start, beside the same calls made of CRI directly with the same variables.
"""

import asyncio
import multiprocessing
import resource
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import dns.message

from benchmarks.figures import Report, p50, quantile
from benchmarks.floor import Floor, floor_runtime
from benchmarks.instance import Bench, PodWatch, delete, pod, watching
from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.runtime import EnvVar
from podyard.api.scheme import ENDPOINT_SLICE, POD, SERVICE
from podyard.app.instances import InstanceTable
from podyard.client.http import HttpApiClient
from podyard.network.build import ServiceRule
from podyard.network.decide import NetworkFacts, decide_table
from podyard.network.nftables import remove_table, run_nft
from podyard.network.table import change_table, replace_table
from podyard.node.environment.build import build_service_environment

SERVICES = 200
PORTS = 5
QUESTIONS = 5000
ROUNDS = 10


def ms(seconds: float) -> str:
    """Show seconds as milliseconds."""
    return f"{seconds * 1000:.2f} ms"


def rules(*, without: int = -1) -> list[ServiceRule]:
    """Return the rules of all Services, three endpoints each."""
    return [
        ServiceRule(
            (f"198.18.{number // 250}.{number % 250 + 1}",),
            80 + port,
            "TCP",
            tuple((f"198.19.0.{end}", 8000 + port) for end in (2, 3, 4)),
        )
        for number in range(SERVICES)
        for port in range(PORTS)
        if number != without
    ]


def measure_nft(report: Report) -> None:
    """Time nft alone, in a table of our own."""
    facts = NetworkFacts(
        "podyard-bench-rules",
        "pyd-none",
        "198.19.0.0/24",
        "198.18.0.0/16",
        bridged_packets_are_filtered=True,
    )
    begin = time.perf_counter()
    full = decide_table(facts, services=rules())
    decided_s = time.perf_counter() - begin
    run_nft(replace_table(decide_table(facts)))
    before_s = cpu_s()
    whole = [timed(replace_table(full)) for _ in range(7)]
    used_s = (cpu_s() - before_s) / len(whole)
    fewer = decide_table(facts, services=rules(without=17))
    one = [
        timed(change_table(old, new))
        for _ in range(5)
        for old, new in ((full, fewer), (fewer, full))
    ]
    remove_table(facts.table)
    report.add(
        f"(j) the rules of {SERVICES} Services x {PORTS} ports, loaded whole",
        f"p50 {ms(p50(whole))}, worst {ms(max(whole))} (aim 200 ms)",
        f"{ms(used_s)} of CPU; deciding them {ms(decided_s)}",
    )
    report.add(
        "(j) one Service of them comes or goes",
        f"p50 {ms(p50(one))}, worst {ms(max(one))}",
    )


def timed(text: str) -> float:
    """Load a ruleset; return the seconds it took."""
    begin = time.perf_counter()
    run_nft(text)
    return time.perf_counter() - begin


def cpu_s() -> float:
    """Return the seconds of CPU that programs run so far took, nft's among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def service(name: str) -> Document:
    """Return a Service of five ports."""
    ports = [{"name": f"p{n}", "port": 80 + n} for n in range(PORTS)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"bench": "yes"}, "ports": ports},
    }


def echo(server: socket.socket) -> None:
    """Send back what comes: the floor of any answer over UDP."""
    while True:
        data, client = server.recvfrom(2000)
        server.sendto(data, client)


def questions(
    address: str, results: "multiprocessing.Queue[tuple[str, list[float]]]"
) -> None:
    """Ask from another process, as Pods do: each kind in turn, and a mere echo."""
    kinds: dict[str, Callable[[int], str]] = {
        "an echo by a process that does nothing else": lambda _: "echo",
        "one name": lambda _: "s-1.default.svc.cluster.local",
        "200 names in turn": lambda n: f"s-{n % SERVICES}.default.svc.cluster.local",
        "names that are not": lambda n: f"x-{n}.default.svc.cluster.local",
    }
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        plain.connect(server.getsockname())
        client.connect((address, 53))
        echoing = multiprocessing.Process(target=echo, args=(server,), daemon=True)
        echoing.start()
        for asked in (plain, client):
            asked.settimeout(2)
        for number in range(QUESTIONS):
            for kind, name in kinds.items():
                asked = plain if "echo" in kind else client
                wire = dns.message.make_query(name(number), "A").to_wire()
                begin = time.perf_counter()
                asked.send(wire)
                asked.recv(2000)
                took[kind].append(time.perf_counter() - begin)
        echoing.terminate()
    for kind, values in took.items():
        results.put((kind, values))


async def start_pod(client: HttpApiClient, watch: PodWatch, *, links: bool) -> float:
    """Return the seconds from POST to Running of one Pod, which then goes."""
    name = f"timed-{uuid.uuid4()}"
    document = pod(name)
    document["metadata"]["labels"] = {}
    document["spec"]["enableServiceLinks"] = links
    begin = time.perf_counter()
    await client.create(POD, document, "default")
    await watch.wait_running(name)
    took_s = watch.running_at[name] - begin
    await delete(client, name)
    await watch.wait_gone(name)
    return took_s


async def start_raw(floor: Floor, envs: Sequence[EnvVar]) -> float:
    """Return the seconds that CRI alone takes."""
    made = await floor.start(envs)
    await floor.remove(made)
    return made.start_s


async def measure_starts(
    client: HttpApiClient, floor: Floor, report: Report, what: str
) -> None:
    """Time Pods with and without variables of Services, beside CRI, in turns."""
    services = (await client.list(SERVICE, ""))["items"]
    document = pod("any")
    document["metadata"]["namespace"] = "default"
    variables = build_service_environment(Pod.of(document), services)
    envs = [EnvVar(name, value.encode()) for name, value in variables.items()]
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "with variables": lambda: start_pod(client, watch, links=True),
        "the same by CRI": lambda: start_raw(floor, envs),
        "without": lambda: start_pod(client, watch, links=False),
        "without by CRI": lambda: start_raw(floor, ()),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    async with watching(client) as watch:
        for number in range(ROUNDS + 1):
            for way, start in ways.items():
                took_s = await start()
                if number:  # the first warms up
                    took[way].append(took_s)
    for ours, raw, variables in (
        ("with variables", "the same by CRI", f"{len(envs)} variables of them"),
        ("without", "without by CRI", "enableServiceLinks: false"),
    ):
        over_s = p50(took[ours]) - p50(took[raw])
        report.add(
            f"(j) one Pod, {what}, {variables}",
            f"p50 {ms(p50(took[ours]))}",
            f"CRI floor {ms(p50(took[raw]))}; over it {ms(over_s)}",
        )


async def measure_instance(bench: Bench, floor: Floor, report: Report) -> None:
    """Measure a whole instance."""
    row = InstanceTable().get(bench.name)
    assert row is not None
    async with bench.client() as client:
        await measure_starts(client, floor, report, "no Services")
        await client.create(POD, pod("server"), "default")
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(SERVICES):
                group.create_task(
                    client.create(SERVICE, service(f"s-{number}"), "default")
                )
        while (
            len((await client.list(ENDPOINT_SLICE, "default"))["items"]) < SERVICES + 1
        ):
            await asyncio.sleep(0.05)
        made_s = time.perf_counter() - begin
        report.add(f"(j) {SERVICES} Services made at once, with slices", ms(made_s))
        delays = [await from_api_to_kernel(client, row.nft_table, n) for n in range(7)]
        what = "(j) a new Service, POST to rule in the kernel"
        report.add(what, f"p50 {ms(p50(delays))}")
        await measure_starts(client, floor, report, f"{SERVICES} Services")
    results: multiprocessing.Queue[tuple[str, list[float]]] = multiprocessing.Queue()
    asking = multiprocessing.Process(
        target=questions, args=(row.cluster_dns_ip, results)
    )
    asking.start()
    for _ in range(4):
        kind, took = await asyncio.to_thread(results.get)
        shown = f"p50 {ms(p50(took))}, p99 {ms(quantile(took, 0.99))}"
        report.add(f"(j) DNS, {kind}", shown, "aim p99 1 ms")
    asking.join()


async def from_api_to_kernel(client: HttpApiClient, table: str, number: int) -> float:
    """Return the seconds until the kernel refuses or forwards a new Service."""
    begin = time.perf_counter()
    made = await client.create(SERVICE, service(f"new-{number}"), "default")
    key = f"{made['spec']['clusterIP']} . tcp . 80"
    command = ["nft", "get", "element", "inet", table]
    while True:
        maps = ("cluster_ips", "unserved_ips")
        for name in maps:
            done = await asyncio.to_thread(
                subprocess.run,
                [*command, name, f"{{ {key} }}"],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return time.perf_counter() - begin


async def measure(bench: Bench, scratch: Path, report: Report) -> None:
    """Measure an instance beside a runtime of nobody's."""
    async with floor_runtime(scratch) as floor:
        await measure_instance(bench, floor, report)


def measure_services(report: Report) -> None:
    """(j) Measure everything, with an instance of its own."""
    measure_nft(report)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench("bench-services", Path(directory) / "data")
        try:
            bench.up()
            asyncio.run(measure(bench, Path(directory), report))
            pid = bench.status()["pid"]
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
            report.add(
                "(j) at rest after that", f"RSS {int(line.split()[1]) // 1000} MB"
            )
        finally:
            bench.cli("down", "--grace", "1s", "--purge")


if __name__ == "__main__":
    measure_services(Report())
