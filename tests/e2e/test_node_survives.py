"""Podyard dies and comes back; its containers do not notice."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml

from support.api import Api, pod_path, until
from support.instance import RunningPodyard, running_podyard
from support.manifests import container, pod

pytestmark = pytest.mark.slow
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


@pytest.fixture(scope="module")
def survivor(tmp_path_factory, manifests):
    """An instance of its own, for it is going to be killed."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    home: Path = tmp_path_factory.mktemp("survivor")
    config = home / "config.yaml"
    config.write_text(yaml.safe_dump({"staticPodPath": str(manifests)}))
    name = f"surv-{os.getpid()}"
    with running_podyard(name, home / "data", "--config", str(config)) as running:
        running_config[name] = config
        yield running


running_config: dict[str, Path] = {}


@pytest.fixture
def client(survivor: RunningPodyard):
    with_api = Api(survivor.kubeconfig)
    yield with_api
    for item in with_api.must("GET", PODS)["items"]:
        if "kubernetes.io/config.mirror" not in (
            item["metadata"].get("annotations") or {}
        ):
            with_api.delete(pod_path(item["metadata"]["name"]), gracePeriodSeconds=0)
    with_api.close()


def kill(instance: RunningPodyard) -> None:
    """Kill Podyard alone, as a crash would."""
    pid = instance.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), within_s=5)


def _is_zombie(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )
    except FileNotFoundError:
        return True


def revive(instance: RunningPodyard) -> None:
    instance.up("--config", str(running_config[instance.name]))


def containers_of(client: Api) -> dict[str, tuple[str, int, str]]:
    """Return id, restarts and state of every container, by Pod and name."""
    found: dict[str, tuple[str, int, str]] = {}
    for item in client.must("GET", PODS)["items"]:
        status = item.get("status") or {}
        for one in status.get("containerStatuses") or ():
            key = f"{item['metadata']['name']}/{one['name']}"
            state = next(iter(one["state"]), "")
            found[key] = (one.get("containerID", ""), one["restartCount"], state)
    return found


def is_running(item: dict) -> bool:
    return item["status"].get("phase") == "Running" and all(
        one["ready"] for one in item["status"]["containerStatuses"]
    )


def all_running(client: Api, count: int) -> bool:
    items = client.must("GET", PODS)["items"]
    return sum(is_running(item) for item in items) >= count


def test_twenty_running_pods_outlive_podyard(survivor, client):
    for number in range(20):
        client.create(pod(f"many-{number}"))
    until(lambda: all_running(client, 20), within_s=60)
    before = containers_of(client)

    kill(survivor)
    revive(survivor)
    time.sleep(3)

    assert containers_of(client) == before
    assert all(is_running(item) for item in client.must("GET", PODS)["items"])


def test_a_pod_deleted_while_podyard_was_away_is_ended_in_time(survivor, client):
    stubborn = container("trap '' TERM; while :; do sleep 1; done")
    client.create(pod("stubborn", stubborn, terminationGracePeriodSeconds=6))
    client.until_pod("stubborn", is_running)
    client.delete(pod_path("stubborn"))
    began_s = time.monotonic()
    time.sleep(1)

    kill(survivor)
    revive(survivor)
    back_s = time.monotonic() - began_s
    until(lambda: client.is_gone(pod_path("stubborn")), within_s=30)

    # A second grace period would be another six seconds from when it is back.
    assert time.monotonic() - began_s < max(6, back_s) + 5


@pytest.mark.parametrize("seed", range(3))
def test_pods_being_started_when_podyard_dies_all_run_once(survivor, client, seed):
    chance = random.Random(seed)
    for number in range(8):
        client.create(pod(f"half-{seed}-{number}"))
    time.sleep(chance.uniform(0.05, 1.2))

    kill(survivor)
    revive(survivor)
    until(lambda: all_running(client, 8), within_s=60)

    names = [f"half-{seed}-{number}" for number in range(8)]
    for name in names:
        status = client.pod(name)["status"]
        assert status["phase"] == "Running", client.explain(client.pod(name))
    time.sleep(2)
    running = _live_containers(survivor, client, names)
    assert sorted(running) == sorted(names)


def _live_containers(
    instance: RunningPodyard, client: Api, names: list[str]
) -> list[str]:
    """Return the Pod of every live container of these, told by its processes."""
    uids = {client.pod(name)["metadata"]["uid"]: name for name in names}
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            cgroup = (entry / "cgroup").read_text()
        except OSError:
            continue
        if "sleep 3600 & wait" not in command:
            continue
        found += [name for uid, name in uids.items() if uid in cgroup]
    return found


def is_being_created(item) -> bool:
    """Whether its one container waits, created and not told to be running yet."""
    states = [one["state"] for one in item["status"].get("containerStatuses") or ()]
    return states == [{"waiting": {"reason": "ContainerCreating"}}]


def test_a_hanging_post_start_holds_up_nothing_but_its_container(survivor, client):
    hook = {"postStart": {"exec": {"command": ["sleep", "3600"]}}}
    client.create(pod("hangs", container(lifecycle=hook)))
    client.create(pod("goes-on"))
    client.until_pod("goes-on", is_running)

    client.until_pod("hangs", is_being_created)
    began_s = time.monotonic()
    client.delete(pod_path("hangs"), gracePeriodSeconds=1)
    until(lambda: client.is_gone(pod_path("hangs")), within_s=20)

    assert time.monotonic() - began_s < 10


def test_a_shortened_grace_period_is_obeyed_at_once(survivor, client):
    stubborn = container("trap '' TERM; while :; do sleep 1; done")
    client.create(pod("slow", stubborn, terminationGracePeriodSeconds=300))
    client.until_pod("slow", is_running)
    client.delete(pod_path("slow"))
    time.sleep(2)
    assert client.pod("slow")["status"]["phase"] == "Running"
    began_s = time.monotonic()

    client.delete(pod_path("slow"), gracePeriodSeconds=1)
    until(lambda: client.is_gone(pod_path("slow")), within_s=20)

    assert time.monotonic() - began_s < 10


def test_a_crash_during_pre_stop_grants_no_second_grace_period(survivor, client):
    hook = {"preStop": {"exec": {"command": ["sleep", "600"]}}}
    client.create(
        pod("parting", container(lifecycle=hook), terminationGracePeriodSeconds=10)
    )
    client.until_pod("parting", is_running)
    client.delete(pod_path("parting"))
    began_s = time.monotonic()
    time.sleep(4)

    kill(survivor)
    revive(survivor)
    back_s = time.monotonic() - began_s
    until(lambda: client.is_gone(pod_path("parting")), within_s=40)

    assert 8 < time.monotonic() - began_s < max(10, back_s) + 8


def test_a_containerd_that_dies_takes_no_container_with_it(survivor, client):
    client.create(pod("steady"))
    client.until_pod("steady", is_running)
    before = containers_of(client)["steady/main"]
    pids = _containerds(survivor)
    assert len(pids) == 1

    os.kill(pids[0], signal.SIGKILL)
    time.sleep(8)
    client.create(pod("after"))
    client.until_pod("after", is_running)

    assert containers_of(client)["steady/main"] == before


def _containerds(instance: RunningPodyard) -> list[int]:
    """Return the containerds of an instance."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text().strip()
                command = (entry / "cmdline").read_bytes()
                if name == "containerd" and str(instance.data_dir).encode() in command:
                    found.append(int(entry.name))
    return found


def test_static_pods_are_run_shown_edited_and_removed(survivor, client, manifests):
    path = manifests / "web.yaml"
    broken = manifests / "broken.yaml"
    manifest = pod("static")
    path.write_text(yaml.safe_dump(manifest))
    broken.write_text("kind: [")
    node = client.must("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"]
    name = f"static-{node}"

    until(lambda: not client.is_gone(pod_path(name)), within_s=30)
    mirror = client.until_pod(name, is_running)
    assert "kubernetes.io/config.mirror" in mirror["metadata"]["annotations"]
    events = [
        item["message"]
        for item in client.must("GET", "/api/v1/namespaces/default/events")["items"]
        if item["reason"] == "FailedValidation"
    ]
    assert any("broken.yaml" in message for message in events)

    manifest["metadata"]["labels"] = {"edited": "yes"}
    path.write_text(yaml.safe_dump(manifest))
    client.until_pod(
        name,
        lambda item: (
            item["metadata"].get("labels") == {"edited": "yes"} and is_running(item)
        ),
    )
    edited = containers_of(client)[f"{name}/main"]

    client.delete(pod_path(name))
    again = client.until_pod(
        name,
        lambda item: (
            item["metadata"]["uid"] != mirror["metadata"]["uid"] and is_running(item)
        ),
    )
    assert again["metadata"]["labels"] == {"edited": "yes"}
    assert containers_of(client)[f"{name}/main"] == edited

    kill(survivor)
    revive(survivor)
    time.sleep(2)
    assert containers_of(client)[f"{name}/main"] == edited

    path.unlink()
    broken.unlink()
    until(lambda: client.is_gone(pod_path(name)), within_s=30)
