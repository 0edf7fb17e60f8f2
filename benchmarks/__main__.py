"""``python -m benchmarks``: everything in one run; writes RESULTS.md.

``--quick`` makes fewer rounds; ``--only a,b`` runs only those sections.
"""

import argparse
import asyncio
import platform
import shutil
import tempfile
import time
from pathlib import Path

import podyard
from benchmarks import podman
from benchmarks.figures import Report, p50, quantile
from benchmarks.floor import Floor, floor_runtime
from benchmarks.instance import Bench, delete, pod, usage, watching
from benchmarks.probes import measure_probes
from benchmarks.pulls import measure_pulls
from benchmarks.services import measure_services
from podyard.api.scheme import CONFIG_MAP, POD
from podyard.app.instances import InstanceTable

HERE = Path(__file__).parent
#: The sections, in no order.
ALL = "abcdefghij"


def ms(seconds: float) -> str:
    """Show seconds as milliseconds."""
    return f"{seconds * 1000:.1f} ms"


async def one_at_a_time(
    bench: Bench, floor: Floor, report: Report, rounds: int
) -> None:
    """(a) POST to Running seen on a watch, beside the raw calls, in turns."""
    ours, raw = [], []
    async with bench.client() as client, watching(client) as watch:
        for number in range(rounds + 2):
            name = f"one-{number}"
            begin = time.perf_counter()
            await client.create(POD, pod(name), "default")
            await watch.wait_running(name)
            took = watch.running_at[name] - begin
            await delete(client, name)
            await watch.wait_gone(name)
            beside = await floor.start()
            await floor.remove(beside)
            if number >= 2:  # the first two warm up
                ours.append(took)
                raw.append(beside.start_s)
    over = p50(ours) - p50(raw)
    report.add(
        "(a) one Pod: POST to Running on a watch, p50 / p90",
        f"{ms(p50(ours))} / {ms(quantile(ours, 0.9))}",
        f"CRI floor {ms(p50(raw))} / {ms(quantile(raw, 0.9))}; over it {ms(over)} "
        "(aim 50 ms)",
    )
    figure = await asyncio.to_thread(podman.time_kube_play, rounds)
    report.add("    podman kube play, p50", figure)


async def at_once(
    bench: Bench, floor: Floor, report: Report, counts: list[int]
) -> None:
    """(b) Many Pods at once."""
    for count in counts:
        async with bench.client() as client, watching(client) as watch:
            names = [f"many-{count}-{number}" for number in range(count)]
            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(client.create(POD, pod(name), "default"))
            await watch.wait_running(*names)
            ours = max(watch.running_at[name] for name in names) - begin
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(delete(client, name))
            await watch.wait_gone(*names)
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            started = [group.create_task(floor.start()) for _ in range(count)]
        raw = time.perf_counter() - begin
        async with asyncio.TaskGroup() as group:
            for task in started:
                group.create_task(floor.remove(task.result()))
        report.add(
            f"(b) {count} Pods at once, all Running",
            f"{ours:.2f} s",
            f"CRI floor {raw:.2f} s; ratio {ours / raw:.2f} (aim 1.2)",
        )


async def churn(bench: Bench, floor: Floor, report: Report, seconds: float) -> None:
    """(c) Create, run, delete, gone: cycles a second with four at a time."""

    async def ours(client, watch, worker: int, until: float) -> int:  # noqa: ANN001
        done = 0
        while time.perf_counter() < until:
            name = f"churn-{worker}-{done}"
            await client.create(POD, pod(name), "default")
            await watch.wait_running(name)
            await delete(client, name)
            await watch.wait_gone(name)
            done += 1
        return done

    async def raw(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await floor.remove(await floor.start())
            done += 1
        return done

    begin = time.perf_counter()
    async with bench.client() as client, watching(client) as watch:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ours(client, watch, worker, begin + seconds))
                for worker in range(4)
            ]
        mine = sum(task.result() for task in tasks) / (time.perf_counter() - begin)
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(raw(begin + seconds)) for _ in range(4)]
    theirs = sum(task.result() for task in tasks) / (time.perf_counter() - begin)
    report.add(
        "(c) churn, four at a time",
        f"{mine:.2f} cycles/s",
        f"CRI floor {theirs:.2f}; {mine / theirs:.0%} of it (aim 90 %)",
    )


async def idle(bench: Bench, report: Report, pods: int, seconds: float) -> None:
    """(e) Memory and CPU at rest."""
    pid = int(bench.status()["pid"])
    async with bench.client() as client:
        async with watching(client) as watch:
            names = [f"idle-{number}" for number in range(pods)]
            for name in names:
                await client.create(POD, pod(name), "default")
            await watch.wait_running(*names)
        await asyncio.sleep(3)
        _, cpu_before = usage(pid)
        await asyncio.sleep(seconds)
        rss, cpu_after = usage(pid)
        report.add(
            f"(e) at rest with {pods} Pods",
            f"RSS {rss / 1e6:.0f} MB, {(cpu_after - cpu_before) / seconds:.2%} of a "
            "core",
            "aim 120 MB, 1 %",
        )
        async with watching(client) as watch, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(delete(client, name))
        async with asyncio.timeout(120):
            while (await client.list(POD, "default"))["items"]:
                await asyncio.sleep(0.2)


async def api(bench: Bench, report: Report, rounds: int) -> None:
    """(f) The API alone."""
    async with bench.client() as client:
        created = 0

        async def create(worker: int) -> None:
            nonlocal created
            for number in range(rounds // 32):
                name = f"bench-{worker}-{number}"
                document = {"metadata": {"name": name}, "data": {"k": "v" * 1000}}
                await client.create(CONFIG_MAP, document, "default")
                created += 1

        async def get(_worker: int) -> None:
            for _ in range(rounds // 32):
                await client.get(CONFIG_MAP, "bench-0-0", "default")

        for what, work in (("create", create), ("GET", get)):
            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for worker in range(32):
                    group.create_task(work(worker))
            count = rounds // 32 * 32
            rate = count / (time.perf_counter() - begin)
            report.add(f"(f) {what}, 32 at a time, TLS", f"{rate:,.0f} /s")
        took = []
        for _ in range(10):
            begin = time.perf_counter()
            listed = await client.list(CONFIG_MAP, "default")
            took.append(time.perf_counter() - begin)
        count = len(listed["items"])
        report.add(f"(f) LIST of {count:,}, decoded by the client", ms(p50(took)))
        pid = int(bench.status()["pid"])
        before, _ = usage(pid)
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:

            async def watch_quietly() -> None:
                events = client.watch(
                    CONFIG_MAP,
                    "default",
                    field_selector="metadata.name=bench-0-0",
                )
                async for _ in events:
                    opened.release()

            opened = asyncio.Semaphore(0)
            tasks = [group.create_task(watch_quietly()) for _ in range(1000)]
            for _ in tasks:
                await opened.acquire()
            took_s = time.perf_counter() - begin
            after, _ = usage(pid)
            begin = time.perf_counter()
            await client.patch(CONFIG_MAP, "bench-0-0", {"data": {"k": "w"}}, "default")
            for _ in tasks:
                await opened.acquire()
            spread_s = time.perf_counter() - begin
            for task in tasks:
                task.cancel()
        report.add(
            "(f) 1,000 idle watches",
            f"opened in {took_s:.2f} s, {(after - before) / 1000 / 1000:.0f} KB each",
            f"one change reaches all in {spread_s:.2f} s",
        )
        await client.delete_collection(CONFIG_MAP, "default")


async def reconcile(bench: Bench, report: Report, pods: int) -> None:
    """(g) kill -9 with Pods running; one container ends meanwhile."""
    async with bench.client() as client, watching(client) as watch:
        names = [f"again-{number}" for number in range(pods)]
        for name in names:
            await client.create(POD, pod(name), "default")
        await watch.wait_running(*names)
        victim = await client.get(POD, names[0], "default")
    row = InstanceTable().get(bench.name)
    assert row is not None
    bench.kill(int(bench.status()["pid"]))
    floor = Floor(row.containerd_socket, row.cgroup_root, bench.data_dir / "floor-logs")
    container_id = victim["status"]["containerStatuses"][0]["containerID"]
    await floor._runtime.stop_container(  # noqa: SLF001 - our own
        container_id.split("://")[1], grace_s=0
    )
    await floor.close()
    begin = time.perf_counter()
    up_s, _ = await asyncio.to_thread(bench.up)
    async with bench.client() as client:
        async with asyncio.timeout(60):
            while True:
                now = await client.get(POD, names[0], "default")
                if now["status"]["containerStatuses"][0]["restartCount"] == 1:
                    break
                await asyncio.sleep(0.01)
        took = time.perf_counter() - begin
        wrong = [
            item["metadata"]["name"]
            for item in (await client.list(POD, "default"))["items"]
            if item["metadata"]["name"] != names[0]
            and item["status"]["containerStatuses"][0]["restartCount"] != 0
        ]
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(delete(client, name))
    report.add(
        f"(g) restart with {pods} Pods: statuses right again",
        f"{took:.2f} s (node Ready after {up_s:.2f} s)",
        f"aim 2 s; wrongly restarted: {len(wrong)}",
    )


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", default=ALL, help="which sections")
    args = parser.parse_args()
    report = Report()
    if "h" in args.only:
        measure_probes(report, 5 if args.quick else 20)
    if "j" in args.only:
        measure_services(report)
    if set(args.only) <= {"h", "j"}:
        return
    scratch = Path(tempfile.mkdtemp(prefix="podyard-bench-"))
    bench = Bench("bench", scratch / "data")
    rounds = 6 if args.quick else 20
    try:
        first_s, text = bench.up()
        if "d" in args.only:
            again = []
            for _ in range(1 if args.quick else 3):
                bench.cli("down")
                took_s, text = bench.up()
                again.append(took_s)
            report.add(
                "(d) cold start: command to node Ready",
                f"first {first_s:.2f} s, again {p50(again):.2f} s",
                "; ".join(line.removeprefix("ok: ") for line in text.splitlines()),
            )

        async def run() -> None:
            if "e" in args.only:
                await idle(bench, report, 0, 5 if args.quick else 20)
            async with floor_runtime(scratch) as floor:
                if "a" in args.only:
                    await one_at_a_time(bench, floor, report, rounds)
                if "b" in args.only:
                    counts = [10] if args.quick else [10, 50, 90]
                    await at_once(bench, floor, report, counts)
                if "c" in args.only:
                    await churn(bench, floor, report, 8 if args.quick else 30)
            if "f" in args.only:
                await api(bench, report, 1024)
            if "e" in args.only and not args.quick:
                await idle(bench, report, 50, 20)
            if "i" in args.only:
                await measure_pulls(bench, report, 3 if args.quick else 7)
            if "g" in args.only:
                await reconcile(bench, report, 10 if args.quick else 50)

        asyncio.run(run())
    finally:
        bench.cli("down", "--grace", "1s", "--purge")
        shutil.rmtree(scratch, ignore_errors=True)
    if args.only == ALL and not args.quick:
        head = (
            "# Measured\n\nMade by `make bench`, everything in one run on one machine: "
            f"{platform.system()} {platform.release()}, Python "
            f"{platform.python_version()}, {__import__('os').cpu_count()} cores, "
            f"Podyard {podyard.__version__}.\n"
            "Absolute times depend on the machine; the ratios are what counts.\n\n"
        )
        (HERE / "RESULTS.md").write_text(head + report.markdown())


if __name__ == "__main__":
    main()
