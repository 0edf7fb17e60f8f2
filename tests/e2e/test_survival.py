"""Podyard and its runtime end in every way there is; Pods do not notice."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from podyard.api.documents import Document
from podyard.app.cleanup import census
from podyard.containerd.processes import find_daemon
from support.api import (
    Api,
    has_ended,
    is_ready,
    phase,
    pod_path,
    state_of,
    statuses,
    until,
)
from support.containerd import BUSYBOX, running_containerd
from support.cri_look import running_containers
from support.instance import RunningPodyard, podyard, running_podyard
from support.manifests import SLEEP, container, pod

MANY = 20
SOURCE = Path(__file__).resolve().parents[2] / "src"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.timeout(180),
]


@dataclass(frozen=True)
class Crowd:
    """An instance with many Pods, and what is to stay as it is."""

    instance: RunningPodyard
    api: Api
    endpoint: str

    def pods(self) -> dict[str, Document]:
        listed = self.api.must("GET", "/api/v1/namespaces/default/pods")["items"]
        return {
            item["metadata"]["name"]: item
            for item in listed
            if item["metadata"]["name"].startswith("many-")
        }

    def lives(self) -> dict[str, tuple[str, int, str]]:
        """Return Pod → container id, restarts and address."""
        return {
            name: (
                statuses(item)["main"]["containerID"],
                statuses(item)["main"]["restartCount"],
                item["status"]["podIP"],
            )
            for name, item in self.pods().items()
        }

    def until_ready(self) -> None:
        try:
            until(
                lambda: (
                    len(self.pods()) == MANY
                    and all(is_ready(item) for item in self.pods().values())
                )
            )
        except TimeoutError:
            unready = [item for item in self.pods().values() if not is_ready(item)]
            raise AssertionError(
                f"{len(unready)} of {len(self.pods())} are not Ready, such as "
                + self.api.explain(unready[0])
            ) from None

    def running(self) -> dict[str, str]:
        return {
            name: found
            for name, found in running_containers(self.endpoint).items()
            if name.startswith("default/many-")
        }


def fill(instance: RunningPodyard, endpoint: str = "", image: str = "") -> Crowd:
    """Start many Pods on an instance."""
    crowd = Crowd(
        instance,
        Api(instance.kubeconfig),
        endpoint or f"unix://{instance.row.containerd_socket}",
    )
    main = container(readinessProbe={"periodSeconds": 1, "exec": {"command": ["true"]}})
    if image:
        main["image"] = image
    node = crowd.api.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    crowd.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"mine": "yes"}}})
    for number in range(MANY):
        # What a person has labelled counts after a restart as it did before.
        crowd.api.create(pod(f"many-{number}", main, nodeSelector={"mine": "yes"}))
    crowd.until_ready()
    return crowd


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    home = tmp_path_factory.mktemp("crowd")
    with running_podyard(f"crowd-{os.getpid()}", home / "data") as instance:
        filled = fill(instance)
        with closing(filled.api):
            yield filled


def test_killing_podyard_changes_no_pod_and_what_ended_meanwhile_is_seen(
    crowd, tmp_path
):
    def ends(name: str, policy: str) -> Document:
        script = (
            f"[ -e /host/{name} ] && {{ {SLEEP}; }}; "
            f"until [ -e /host/go ]; do sleep 0.05; done; echo ended; touch /host/{name}; exit 5"
        )
        return pod(
            name,
            container(script, volumeMounts=[{"name": "host", "mountPath": "/host"}]),
            restartPolicy=policy,
            volumes=[{"name": "host", "hostPath": {"path": str(tmp_path)}}],
        )

    api = crowd.api
    api.create(ends("ends-once", "Never"), ends("ends-always", "Always"))
    api.create(
        pod(
            "leaving",
            container("trap '' TERM; while :; do sleep 1; done"),
            terminationGracePeriodSeconds=4,
        )
    )
    for name in ("ends-once", "ends-always", "leaving"):
        api.until_pod(name, is_ready)
    before, inside = crowd.lives(), crowd.running()
    api.delete(pod_path("leaving"))

    crowd.instance.kill()
    (tmp_path / "go").touch()
    until(
        lambda: (
            (tmp_path / "ends-once").exists() and (tmp_path / "ends-always").exists()
        )
    )
    crowd.instance.up()
    crowd.until_ready()
    ended = api.until_pod("ends-once", has_ended)
    again = api.until_pod(
        "ends-always",
        lambda p: is_ready(p) and statuses(p)["main"]["restartCount"] == 1,
    )

    assert crowd.lives() == before
    assert crowd.running() == inside
    assert (phase(ended), state_of(ended)) == ("Failed", "terminated Error 5")
    assert state_of(again, last=True) == "terminated Error 5"
    assert api.log("ends-once") == "ended\n"
    until(lambda: api.is_gone(pod_path("leaving")))
    for name in ("ends-once", "ends-always"):
        api.delete(pod_path(name), gracePeriodSeconds=1)


def test_killing_podyard_again_and_again_while_pods_come_and_go_loses_none(crowd):
    api, before = crowd.api, crowd.lives()

    for number in range(3):
        api.create(pod(f"fresh-{number}"))
        crowd.instance.kill()
        crowd.instance.up()
    crowd.until_ready()
    for number in range(3):
        fresh = api.until_pod(f"fresh-{number}", is_ready)
        assert statuses(fresh)["main"]["restartCount"] == 0

    running = running_containers(crowd.endpoint)
    assert crowd.lives() == before
    assert {f"default/fresh-{n}/main" for n in range(3)} <= set(running)
    for number in range(3):
        api.delete(pod_path(f"fresh-{number}"), gracePeriodSeconds=0)


def test_killing_containerd_changes_no_pod_and_new_ones_start_after(crowd):
    before, inside = crowd.lives(), crowd.running()
    daemon = find_daemon(crowd.instance.row.runtime_dir / "config.toml")

    os.kill(daemon.pid, signal.SIGKILL)
    until(
        lambda: (
            (now := find_daemon(crowd.instance.row.runtime_dir / "config.toml"))
            and now != daemon
        )
    )
    crowd.api.create(pod("after-containerd"))
    crowd.api.until_pod("after-containerd", is_ready)
    crowd.until_ready()

    assert crowd.lives() == before
    assert crowd.running() == inside
    crowd.api.delete(pod_path("after-containerd"), gracePeriodSeconds=0)


def test_killing_both_changes_no_pod(crowd):
    before = crowd.lives()
    daemon = find_daemon(crowd.instance.row.runtime_dir / "config.toml")

    os.kill(daemon.pid, signal.SIGKILL)
    crowd.instance.kill()
    crowd.instance.up()
    crowd.until_ready()

    assert crowd.lives() == before


def test_down_with_keep_pods_stops_only_podyard(crowd):
    before, inside = crowd.lives(), crowd.running()

    crowd.instance.cli("down", "--keep-pods")
    stopped = crowd.instance.cli("status", check=False)
    meanwhile = crowd.running()
    crowd.instance.up()
    crowd.until_ready()

    assert stopped.returncode == 3
    assert meanwhile == inside
    assert crowd.lives() == before


def test_a_second_instance_is_another_world_and_its_end_is_none_of_ours(
    crowd, tmp_path
):
    before = crowd.lives()
    name = f"other-{os.getpid()}"

    with running_podyard(name, tmp_path / "data") as other:
        with closing(Api(other.kubeconfig)) as api:
            api.create(pod("many-0"))
            theirs = api.until_pod("many-0", is_ready)
            mine = crowd.pods()["many-0"]
            listed = api.must("GET", "/api/v1/pods")["items"]
        row = other.row
        ours = crowd.instance.row

    assert len(listed) == 1
    assert theirs["status"]["podIP"] != mine["status"]["podIP"]
    assert not row.pod_cidr.overlaps(ours.pod_cidr)
    assert not row.service_cidr.overlaps(ours.service_cidr)
    assert {row.api_port, row.node_port}.isdisjoint({ours.api_port, ours.node_port})
    assert census(row) == frozenset()
    assert not (tmp_path / "data").exists()
    crowd.until_ready()
    assert crowd.lives() == before


def test_a_second_up_of_a_running_instance_says_that_it_runs(crowd):
    before = crowd.instance.pid
    again = podyard(
        "up",
        "-d",
        "--name",
        crowd.instance.name,
        "--data-dir",
        str(crowd.instance.data_dir),
        check=False,
    )

    assert "running" in again.stderr
    assert str(crowd.instance.name) in again.stderr
    assert "Error" not in again.stderr
    assert crowd.instance.pid == before


def test_down_after_a_crash_and_up_again_brings_the_pods_back(crowd):
    """Comes last: it ends what the others live in."""
    uids = {name: item["metadata"]["uid"] for name, item in crowd.pods().items()}
    row = crowd.instance.row
    crowd.instance.kill()

    crowd.instance.cli("down", "--grace", "2s")
    left = census(row)
    again = crowd.instance.cli("down")
    crowd.instance.up()
    crowd.until_ready()
    restored = {name: item["metadata"]["uid"] for name, item in crowd.pods().items()}
    begin = time.monotonic()
    crowd.instance.cli("down", "--grace", "5s")

    assert left == frozenset()
    assert again.returncode == 0
    assert restored == uids
    assert time.monotonic() - begin < 60
    assert census(row) == frozenset()
    assert (crowd.instance.data_dir / "store.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--keep-pods",), id="pods-run-on"),
        pytest.param(("--grace", "5s"), id="pods-stop"),
    ],
)
def test_a_program_that_was_replaced_under_a_running_podyard_can_still_be_stopped(
    tmp_path, arguments
):
    source = tmp_path / "source"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    hook = {"preStop": {"exec": {"command": ["true"]}}}
    name = f"replaced-{os.getpid()}"
    with ready_from(source, RunningPodyard(name, tmp_path / "data")) as instance:
        with closing(Api(instance.kubeconfig)) as api:
            api.create(pod("stays"), pod("goes", container(lifecycle=hook)))
            api.until_pod("stays", is_ready)
            api.until_pod("goes", is_ready)
            before = statuses(api.pod("stays"))["main"]

            # What it has not loaded by now it will not find.
            shutil.rmtree(source)
            api.delete(pod_path("goes"))
            until(lambda: api.is_gone(pod_path("goes")))
            instance.cli("down", *arguments)
            instance.up()
            restarts = 0 if "--keep-pods" in arguments else 1
            after = api.until_pod(
                "stays",
                lambda p: (
                    is_ready(p) and statuses(p)["main"]["restartCount"] == restarts
                ),
            )

        kept = statuses(after)["main"]["containerID"] == before["containerID"]
        assert kept is (restarts == 0)
        assert "ModuleNotFoundError" not in (tmp_path / "data/podyard.log").read_text()


@contextmanager
def ready_from(source: Path, instance: RunningPodyard) -> Iterator[RunningPodyard]:
    """Start an instance with the program of another source tree."""
    try:
        podyard(
            "up",
            "--detach",
            "--name",
            instance.name,
            "--data-dir",
            str(instance.data_dir),
            "--port",
            "0",
            "--node-port",
            "0",
            environment={"PYTHONPATH": str(source)},
        )
        yield instance
    finally:
        instance.cli("down", "--grace", "1s", "--purge", check=False)


def test_with_a_given_runtime_a_kill_changes_no_pod_and_down_leaves_the_runtime(
    tmp_path,
):
    with running_containerd(tmp_path / "theirs") as theirs:
        name = f"guest-{os.getpid()}"
        arguments = ("--runtime-endpoint", theirs.endpoint)
        with running_podyard(name, tmp_path / "data", *arguments) as instance:
            crowd = fill(instance, theirs.endpoint, BUSYBOX)
            before, inside = crowd.lives(), crowd.running()

            instance.kill()
            instance.up(*arguments)
            crowd.until_ready()
            after = crowd.lives()
            crowd.api.close()
            instance.cli("down", "--grace", "1s")

            assert after == before
            assert len(inside) == MANY
            assert running_containers(theirs.endpoint) == {}


def test_a_full_data_directory_is_told_and_nothing_else_ends(tmp_path):
    data: Path = tmp_path / "data"
    data.mkdir()
    with small_disk(data), running_podyard(f"full-{os.getpid()}", data) as instance:
        with closing(Api(instance.kubeconfig)) as api:
            api.create(pod("early"))
            first = api.until_pod("early", is_ready)
            filler = data / "filler"
            fill_up(filler)

            refused = until(lambda: full_answer(api))
            still = api.pod("early")
            filler.unlink()
            api.create(pod("late"))
            api.until_pod("late", is_ready)

        assert refused["kind"] == "Status"
        assert "space" in refused["message"] or "full" in refused["message"]
        assert (
            statuses(still)["main"]["containerID"]
            == statuses(first)["main"]["containerID"]
        )


def full_answer(api: Api) -> Document | None:
    """Write until the disk is full; return the refusal."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"generateName": "big-"},
        "data": {"a": "x" * 200_000},
    }
    answer = api.ask("POST", "/api/v1/namespaces/default/configmaps", document)
    return answer.document if answer.status >= 300 else None


def fill_up(file: Path) -> None:
    with file.open("wb") as out:
        try:
            while True:
                out.write(b"\0" * 1_000_000)
                out.flush()
        except OSError:
            pass


class small_disk:  # noqa: N801 - reads as a function
    """A filesystem of 100 MB on a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        run("mount", "-t", "tmpfs", "-o", "size=100m", "none", str(self._directory))

    def __exit__(self, *exc: object) -> None:
        run("umount", "-l", str(self._directory))


def run(*command: str) -> None:
    import subprocess

    subprocess.run(command, check=True, timeout=20)
