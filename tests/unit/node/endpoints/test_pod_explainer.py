"""What a node answers about a Pod, also about one that is gone."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from podyard.api.core_v1 import Pod
from podyard.cri.services import CRIError
from podyard.node.endpoints.explain import (
    PARTS,
    ExplainParts,
    PodExplainer,
    describe_admission,
)
from podyard.node.endpoints.parts import EndpointError
from podyard.node.environment.build import EnvironmentSources
from podyard.node.environment.explain import explain_environment
from podyard.node.runtime_classes.parts import RuntimeClassError
from podyard.store.backend import StoreIOError
from support.pods import MemoryJournal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CANARY = "canary-value"
REFERENCE = {"secretKeyRef": {"name": "s", "key": "k"}}
POD = Pod.of(
    {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
        "spec": {
            "runtimeClassName": "kata",
            "initContainers": [{"name": "i", "image": "i:1"}],
            "containers": [
                {
                    "name": "c",
                    "image": "c:1",
                    "env": [{"name": "A", "valueFrom": REFERENCE}],
                }
            ],
        },
    }
)
STATUS = {
    "podIPs": [],
    "containerStatuses": [
        {
            "name": "c",
            "imageID": "sha256:c",
            "containerID": "containerd://abc",
            "state": {"running": {}},
        }
    ],
}


@dataclass
class World:
    """The rooms an explainer asks."""

    pod: Pod | None = POD
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    class_error: str = ""
    image_error: bool = False
    asked_images: list[str] = field(default_factory=list)

    def find_pod(self, namespace, name):
        return self.pod if (namespace, name) == ("ns", "p") else None

    def all_pods(self):
        return ()

    def handler_for(self, pod):
        if self.class_error:
            raise RuntimeClassError(self.class_error)
        return "kata"

    async def explain(self, pod, container, *, image, **_):
        data = {"k": base64.b64encode(CANARY.encode()).decode()}
        sources = EnvironmentSources(secrets={"s": {"data": data}})
        return explain_environment(pod, container, sources, image=image)

    async def image_environment(self, image):
        self.asked_images.append(image)
        if self.image_error:
            raise CRIError("ImageStatus", "UNAVAILABLE", "away")
        return ("PATH=/bin",)

    async def container_environment(self, container_id):
        assert container_id == "abc"
        if self.image_error:
            raise CRIError("ContainerStatus", "UNAVAILABLE", "away")
        return (f"A=old-{CANARY}", "HOSTNAME=p")

    def ask(self, *wanted, name="p", shown=()):
        parts = ExplainParts(
            journal=self.journal,
            pods=self,
            environment=self,
            runtime_classes=self,
            handlers=lambda: ("", "runc"),
            image_environment=self.image_environment,
            container_environment=self.container_environment,
            status=lambda _: STATUS,
            story=lambda uid: {"uid": uid, "stopping": [{"containerID": "x"}]},
            host_ips=(),
            allocatable=dict,
        )
        return PodExplainer("n1", parts).explain(
            "ns", name, wanted=frozenset(wanted), shown=frozenset(shown)
        )


async def record(world, kind, uid="u1", **body):
    body = {"namespace": "ns", "pod": "p"} | body
    return await world.journal.note(kind, uid, body, at=NOW)


async def test_records_are_told_by_kind_and_only_of_that_pod():
    world = World()
    await record(world, "pull", result="Pulled")
    await record(world, "hook", result="succeeded")
    await record(world, "pull", "u2", result="another's")
    open_id = await world.journal.open("stop", "u1", {"why": "deleted"}, at=NOW)

    found = await world.ask()

    assert [one["result"] for one in found["pulls"]] == ["Pulled"]
    assert [one["result"] for one in found["hooks"]] == ["succeeded"]
    assert found["stops"] == [
        {"id": open_id, "openedAt": "2026-01-01T00:00:00.000000Z", "why": "deleted"}
    ]
    assert (found["node"], found["gone"]) == ("n1", False)
    assert found["story"]["uid"] == "u1"
    assert found["stopping"] == [{"containerID": "x"}]
    assert found["runtimeClass"] == {
        "class": "kata",
        "handlers": ["", "runc"],
        "handler": "kata",
    }


@pytest.mark.parametrize("part", PARTS)
async def test_only_what_is_wanted_is_told(part):
    found = await World().ask(part)

    assert {one for one in PARTS if one in found} == {part}


async def test_secret_values_are_told_only_where_they_may_be_shown():
    world = World()

    hidden = await world.ask("environment")
    shown = await world.ask("environment", shown=("s",))

    assert CANARY not in str(hidden)
    (_, container) = shown["environment"]
    assert container["variables"][0]["value"] == CANARY
    assert container["variables"][0]["runningValue"] == f"old-{CANARY}"
    assert container["variables"][1]["source"] == {"kind": "image"}
    assert hidden["environment"][1]["variables"][0]["running"] == "other"
    assert world.asked_images == ["i:1", "sha256:c"] * 2


async def test_an_image_that_cannot_be_asked_leaves_its_variables_out():
    found = await World(image_error=True).ask("environment")

    assert [v["name"] for v in found["environment"][1]["variables"]] == ["A"]


async def test_a_class_that_is_gone_is_told():
    found = await World(class_error="not found").ask("runtimeClass")

    assert found["runtimeClass"]["error"] == "not found"
    assert "handler" not in found["runtimeClass"]


async def test_of_a_pod_that_is_gone_the_newest_of_its_name_is_told():
    world = World(pod=None)
    await record(world, "stop", "older", endedBy="stop signal")
    await record(world, "stop", "newer", endedBy="SIGKILL")

    found = await world.ask()

    assert (found["gone"], found["metadata"]["uid"]) == (True, "newer")
    assert [one["endedBy"] for one in found["stops"]] == ["SIGKILL"]
    assert "environment" not in found


async def test_a_pod_nobody_knows_is_not_found():
    with pytest.raises(EndpointError) as caught:
        await World(pod=None).ask()

    assert caught.value.code == 404


async def test_a_journal_that_cannot_be_read_is_told():
    class Broken(MemoryJournal):
        async def list(self, *_, **__):
            raise StoreIOError("bad disk")

    with pytest.raises(EndpointError) as caught:
        await World(journal=Broken()).ask()

    assert (caught.value.code, caught.value.message) == (
        500,
        "the node's journal: bad disk",
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({}, {"admitted": True}, id="pending"),
        pytest.param(
            {"phase": "Failed", "message": "it broke"}, {"admitted": True}, id="failed"
        ),
        pytest.param(
            {
                "phase": "Failed",
                "reason": "OutOfcpu",
                "message": "Pod was rejected: too little",
            },
            {"admitted": False, "reason": "OutOfcpu", "message": "too little"},
            id="rejected",
        ),
    ],
)
def test_admission_is_read_from_the_status(status, expected):
    assert describe_admission(status) == expected
