"""After a reboot everything that should run comes back, and tells what it lost."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from podyard.api.documents import Document
from podyard.app.cleanup import census
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
from support.cri_look import running_containers
from support.instance import RunningPodyard, running_podyard
from support.manifests import SLEEP, config_map, container, pod, secret
from support.reboot import reboot

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.timeout(240),
]

LOST = "terminated Unknown 255"
VOLUMES = [
    {"name": "disk", "emptyDir": {}},
    {"name": "memory", "emptyDir": {"medium": "Memory"}},
    {"name": "secret", "secret": {"secretName": "word"}},
    {"name": "config", "configMap": {"name": "settings"}},
]
MOUNTS = [
    {"name": "ledger", "mountPath": "/ledger"},
    *({"name": one["name"], "mountPath": f"/{one['name']}"} for one in VOLUMES),
    {"name": "config", "mountPath": "/one/key", "subPath": "key"},
]
VOLUME_REPORT = (
    'echo "disk=$(ls /disk) memory=$(ls /memory) secret=$(cat /secret/word) '
    "config=$(cat /config/key) one=$(cat /one/key) "
    'kind=$(stat -f -c %T /memory)" > /ledger/volumes; touch /disk/kept /memory/lost; '
)


@dataclass(frozen=True)
class Rebooted:
    """An instance some time after the reboot, and what was before."""

    instance: RunningPodyard
    api: Api
    before: dict[str, Document]
    ledger: Path

    def pod(self, name: str) -> Document:
        return self.api.pod(name)

    def ran(self) -> list[str]:
        """Return what the Pods' processes noted since the reboot, in order."""
        return notes(self.ledger)

    def hooks(self, name: str) -> list[tuple[str, str]]:
        """Return hook and result of every delivery, oldest first."""
        told = self.instance.cli("hooks", name, "-o", "json").stdout
        return [(one["hook"], one.get("result", "")) for one in orjson.loads(told)]


def notes(ledger: Path) -> list[str]:
    file = ledger / "notes"
    return file.read_text().split() if file.exists() else []


def noting(name: str, script: str) -> str:
    """Return a script that says that it runs, and where, before it goes on."""
    return (
        f"ip -4 -o addr show eth0 | tr -s ' ' | cut -d ' ' -f 4 > /ledger/{name}.ip; "
        f"echo {name} >> /ledger/notes; {script}"
    )


def part(name: str, script: str, called: str = "main", **fields: Any) -> Document:
    return container(noting(name, script), called, volumeMounts=MOUNTS, **fields)


def hook(script: str) -> Document:
    return {"exec": {"command": ["sh", "-c", script]}}


def pods(ledger: Path) -> list[Document]:
    volumes = [{"name": "ledger", "hostPath": {"path": str(ledger)}}, *VOLUMES]

    def made(name: str, *parts: Document, **spec: Any) -> Document:
        return pod(name, *parts, volumes=volumes, **spec)

    return [
        made(
            "web",
            part(
                "web",
                VOLUME_REPORT + SLEEP,
                lifecycle={"preStop": hook("echo web-PreStop >> /ledger/notes")},
            ),
            initContainers=[
                part("web-first", "exit 0", "first"),
                part("web-side", SLEEP, "side", restartPolicy="Always"),
            ],
        ),
        made("done", part("done", "exit 0"), restartPolicy="Never"),
        made("batch", part("batch", "exit 0"), restartPolicy="OnFailure"),
        made("once", part("once", SLEEP), restartPolicy="Never"),
        made(
            "halfway",
            part("halfway", SLEEP),
            part("halfway-done", "exit 0", "done"),
            restartPolicy="OnFailure",
        ),
        made(
            "hooked",
            part(
                "hooked",
                SLEEP,
                lifecycle={
                    "postStart": hook(
                        "echo hooked-PostStart >> /ledger/notes; "
                        "until [ -e /ledger/go ]; do sleep 0.05; done"
                    )
                },
            ),
        ),
        made(
            "leaving",
            part(
                "leaving",
                "trap '' TERM; while :; do sleep 1; done",
                lifecycle={
                    "preStop": hook("echo leaving-PreStop >> /ledger/notes; sleep 60")
                },
            ),
            terminationGracePeriodSeconds=90,
        ),
    ]


def has_half_ended(seen: Document) -> bool:
    return state_of(seen, "done") == "terminated Completed 0" and (
        state_of(seen) == "running"
    )


@pytest.fixture(scope="module")
def rebooted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebooted]:
    home = tmp_path_factory.mktemp("reboot")
    manifests, ledger = home / "manifests", home / "ledger"
    manifests.mkdir()
    ledger.mkdir()
    (manifests / "static.yaml").write_text(yaml.safe_dump(pod("static")))
    config = home / "config.yaml"
    config.write_text(yaml.safe_dump({"staticPodPath": str(manifests)}))
    name = f"reboot-{os.getpid()}"
    with (
        running_podyard(name, home / "data", "--config", str(config)) as instance,
        closing(Api(instance.kubeconfig)) as api,
    ):
        before = live(api, ledger)
        row = instance.row

        reboot(row, instance.pid)
        assert census(row) - cni_results(row) == frozenset()
        (ledger / "notes").unlink()
        (ledger / "go").touch()
        instance.up("--config", str(config))

        for back in ("web", "halfway", "hooked", static_name(api)):
            api.until_pod(back, is_back)
        api.until_pod("once", has_ended)
        until(lambda: api.is_gone(pod_path("leaving")))
        yield Rebooted(instance, api, before, ledger)
    assert census(row) == frozenset()


def is_back(seen: Document) -> bool:
    return statuses(seen)["main"]["restartCount"] == 1 and is_running(seen)


def is_running(seen: Document) -> bool:
    return state_of(seen) == "running" and statuses(seen)["main"]["ready"]


def cni_results(row: Any) -> frozenset[str]:
    """Return what lies on disk, where a reboot leaves it."""
    return frozenset(one for one in census(row) if one.startswith("CNI result"))


def static_name(api: Api) -> str:
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    return f"static-{node['metadata']['name']}"


def live(api: Api, ledger: Path) -> dict[str, Document]:
    """Bring every Pod to where the reboot is to find it; return them."""
    api.create(secret("word", word="secret"), config_map("settings", key="value"))
    api.create(*pods(ledger))
    for name in ("web", "once", "leaving"):
        api.until_pod(name, is_ready)
    for name in ("done", "batch"):
        api.until_pod(name, has_ended)
    api.until_pod("halfway", has_half_ended)
    until(lambda: "hooked-PostStart" in notes(ledger))
    static = static_name(api)
    until(lambda: not api.is_gone(pod_path(static)))
    api.until_pod(static, is_ready)
    api.delete(pod_path("leaving"))
    until(lambda: "leaving-PreStop" in notes(ledger))
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    path = f"/api/v1/nodes/{node['metadata']['name']}/status"
    api.patch(path, {"status": {"nodeInfo": {"bootID": "the boot before"}}})
    listed = api.must("GET", "/api/v1/namespaces/default/pods")["items"]
    return {item["metadata"]["name"]: item for item in listed}


def test_pods_come_back_in_new_sandboxes_as_the_same_objects(rebooted):
    for name in ("web", "halfway", "hooked"):
        now = rebooted.pod(name)

        assert now["metadata"]["uid"] == rebooted.before[name]["metadata"]["uid"]
        assert phase(now) == "Running"
        assert statuses(now)["main"]["restartCount"] == 1
        assert state_of(now, last=True) == LOST
        assert any(
            event.startswith("Normal SandboxChanged ")
            for event in rebooted.api.events(name)
        )
        assert not any(
            event.startswith("Warning BackOff ") for event in rebooted.api.events(name)
        )


def test_what_was_lost_is_told_with_the_times_and_the_id_it_had(rebooted):
    now = statuses(rebooted.pod("web"))["main"]
    before = statuses(rebooted.before["web"])["main"]
    lost = now["lastState"]["terminated"]

    assert lost["containerID"] == before["containerID"]
    assert lost["startedAt"] == before["state"]["running"]["startedAt"]
    assert lost["finishedAt"] >= lost["startedAt"]
    assert now["containerID"] != before["containerID"]


def test_init_containers_run_again_before_the_others(rebooted):
    ran = [one for one in rebooted.ran() if one.startswith("web")]
    now = rebooted.pod("web")

    assert ran == ["web-first", "web-side", "web"]
    assert statuses(now)["first"]["restartCount"] == 1
    assert state_of(now, "first") == "terminated Completed 0"
    assert state_of(now, "side") == "running"


def test_no_pre_stop_runs_for_what_was_lost(rebooted):
    assert not [one for one in rebooted.ran() if one.endswith("PreStop")]


def test_what_was_done_is_not_done_again(rebooted):
    for name in ("done", "batch"):
        now = rebooted.pod(name)

        assert now["status"] == rebooted.before[name]["status"]
    assert statuses(rebooted.pod("halfway"))["done"]["restartCount"] == 0
    assert {"done", "batch", "once", "halfway-done"}.isdisjoint(rebooted.ran())


def test_a_pod_that_is_never_restarted_fails(rebooted):
    now = rebooted.pod("once")

    assert phase(now) == "Failed"
    assert state_of(now) == LOST
    assert statuses(now)["main"]["restartCount"] == 0


def test_a_post_start_that_was_lost_is_closed_and_the_new_container_has_its_own(
    rebooted,
):
    until(lambda: rebooted.hooks("hooked")[-1][1] == "succeeded")

    assert rebooted.hooks("hooked") == [
        ("PostStart", "container gone"),
        ("PostStart", "succeeded"),
    ]
    assert rebooted.ran().count("hooked-PostStart") == 1


def test_a_pod_that_was_being_deleted_is_gone_and_its_pre_stop_closed(rebooted):
    assert rebooted.hooks("leaving") == [("PreStop", "container gone")]
    assert "leaving" not in rebooted.ran()


def test_the_stop_that_was_under_way_is_told_to_have_ended_alone(rebooted):
    told = rebooted.instance.cli("explain", "stop", "leaving").stdout

    assert "deleted" in told
    assert "ended while the agent was away" in told
    assert "under way" not in told


def test_a_static_pod_comes_back_too(rebooted):
    now = rebooted.pod(static_name(rebooted.api))

    assert statuses(now)["main"]["restartCount"] == 1
    assert state_of(now, last=True) == LOST


def test_a_disk_volume_is_kept_and_the_others_are_made_anew(rebooted):
    told = (rebooted.ledger / "volumes").read_text().strip()

    assert told == ("disk=kept memory= secret=secret config=value one=value kind=tmpfs")


def test_every_pod_has_an_address_of_its_own(rebooted):
    shown = {
        name: rebooted.pod(name)["status"]["podIP"]
        for name in ("web", "halfway", "hooked")
    }
    inside = {
        name: (rebooted.ledger / f"{name}.ip").read_text().split("/")[0]
        for name in shown
    }
    static = rebooted.pod(static_name(rebooted.api))["status"]["podIP"]

    assert inside == shown
    assert len({*shown.values(), static}) == 4


def test_only_what_should_run_runs_and_once(rebooted):
    endpoint = f"unix://{rebooted.instance.row.containerd_socket}"

    assert set(running_containers(endpoint)) == {
        "default/web/main",
        "default/web/side",
        "default/halfway/main",
        "default/hooked/main",
        f"default/{static_name(rebooted.api)}/main",
    }


def test_the_node_tells_that_it_was_rebooted(rebooted):
    (node,) = rebooted.api.must("GET", "/api/v1/nodes")["items"]
    name = node["metadata"]["name"]
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    rebooted.api.until_event(
        name, f"Warning Rebooted Node {name} has been rebooted, boot id: {boot_id}"
    )
    assert node["status"]["nodeInfo"]["bootID"] == boot_id
