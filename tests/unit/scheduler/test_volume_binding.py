"""Where a Pod may go with its claims, and which volume a claim gets."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.api.storage import (
    BIND_COMPLETED,
    NO_PROVISIONER,
    PROVISIONER,
    VOLUMES_DIR,
    PodClaim,
    PodStorage,
    default_class,
    find_volume,
    node_label,
)
from podyard.scheduler.decide import Unschedulable, decide_placement
from podyard.scheduler.parts import NodeInfo
from podyard.scheduler.plugins.volume_binding import (
    ELSEWHERE,
    NONE_TO_BIND,
    PART,
    TAKEN,
    UNBOUND,
    check,
)
from support.stored_objects import make

WAITS = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": PROVISIONER}
STATIC = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": NO_PROVISIONER}
HELP = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling"


def pod(**volume: Any) -> Document:
    volume = volume or {"persistentVolumeClaim": {"claimName": "c"}}
    return make("Pod", "p", "default", spec={"volumes": [{"name": "v", **volume}]})


def node(name: str = "n", **annotations: str) -> NodeInfo:
    notes = annotations or {VOLUMES_DIR: "/volumes"}
    return NodeInfo(make("Node", name, metadata={"annotations": notes}))


def claim(volume: str = "", **metadata: Any) -> Document:
    if volume:
        metadata["annotations"] = {BIND_COMPLETED: "yes"}
    return make(
        "PersistentVolumeClaim",
        "c",
        "default",
        metadata=metadata,
        spec={
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "s",
            "volumeMode": "Filesystem",
            **({"volumeName": volume} if volume else {}),
        },
        status={"phase": "Bound" if volume else "Pending"},
    )


def volume(name: str = "v", size: str = "1Gi", on: str = "", **spec: Any) -> Document:
    if on:
        field = {"key": "metadata.name", "operator": "In", "values": [on]}
        spec["nodeAffinity"] = {
            "required": {"nodeSelectorTerms": [{"matchFields": [field]}]}
        }
    return make(
        "PersistentVolume",
        name,
        spec={
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "capacity": {"storage": size},
            "storageClassName": "s",
            "volumeMode": "Filesystem",
            **spec,
        },
        status={"phase": "Available"},
    )


HAD = {"claimRef": {"namespace": "default", "name": "c", "uid": "uid-c"}}


@pytest.mark.parametrize(
    ("one", "spare", "reason"),
    [
        pytest.param(
            PodClaim("c", None), (), 'persistentvolumeclaim "c" not found', id="absent"
        ),
        pytest.param(
            PodClaim("c", claim(deletionTimestamp="now")),
            (),
            'persistentvolumeclaim "c" is being deleted',
            id="going",
        ),
        pytest.param(PodClaim("c", claim()), (), UNBOUND, id="immediate"),
        pytest.param(
            PodClaim("c", claim(), None, WAITS), (), "", id="waits-for-this-pod"
        ),
        pytest.param(
            PodClaim("c", claim(), None, STATIC), (), NONE_TO_BIND, id="none-to-bind"
        ),
        pytest.param(
            PodClaim("c", claim(), None, STATIC), (volume(on="n"),), "", id="one-here"
        ),
        pytest.param(
            PodClaim("c", claim(), None, STATIC),
            (volume(on="m"),),
            NONE_TO_BIND,
            id="one-elsewhere",
        ),
        pytest.param(
            PodClaim("c", claim("v"), volume(on="n", **HAD)), (), "", id="bound-here"
        ),
        pytest.param(
            PodClaim("c", claim("v"), volume(on="m", **HAD)),
            (),
            ELSEWHERE,
            id="bound-elsewhere",
        ),
        pytest.param(
            PodClaim("c", claim("v"), volume(), None), (), UNBOUND, id="half-bound"
        ),
        pytest.param(
            PodClaim("c", claim("v"), volume(**HAD), None, frozenset({"n"})),
            (),
            TAKEN,
            id="read-write-once-pod",
        ),
    ],
)
def test_a_claim_says_where_its_pod_may_go(
    one: PodClaim, spare: tuple[Document, ...], reason: str
) -> None:
    info = NodeInfo(node().node, storage=PodStorage((one,), spare))

    objection = check(pod(), info)

    assert (objection.reasons if objection else ("",)) == (reason,)


def test_a_node_that_keeps_no_volumes_gets_none() -> None:
    storage = PodStorage((PodClaim("c", claim(), None, WAITS),))

    objection = check(pod(), NodeInfo(node(other="x").node, storage=storage))

    assert objection is not None
    assert objection.reasons == (NONE_TO_BIND,)


@pytest.mark.parametrize(
    ("document", "name", "text"),
    [
        pytest.param(pod(), "c", 'persistentvolumeclaim "c" not found', id="named"),
        pytest.param(
            pod(ephemeral={}),
            "p-v",
            "waiting for ephemeral volume controller to create the "
            'persistentvolumeclaim "p-v"',
            id="ephemeral",
        ),
    ],
)
def test_what_is_so_everywhere_is_said_without_a_count(
    document: Document, name: str, text: str
) -> None:
    info = NodeInfo(node().node, storage=PodStorage((PodClaim(name, None),)))

    verdict = decide_placement(document, [info], [PART])

    assert isinstance(verdict, Unschedulable)
    assert verdict.message == f"0/1 nodes are available: {text}. {HELP}."


@pytest.mark.parametrize(
    ("volumes", "name"),
    [
        pytest.param([], None, id="none"),
        pytest.param([volume("big", "9Gi"), volume("fit", "2Gi")], "fit", id="least"),
        pytest.param([volume("small", "1Mi")], None, id="too-small"),
        pytest.param([volume("o", storageClassName="o")], None, id="other-class"),
        pytest.param([volume("b", volumeMode="Block")], None, id="block"),
        pytest.param([volume("r", accessModes=["ReadOnlyMany"])], None, id="modes"),
        pytest.param(
            [volume("a"), volume("kept", "9Gi", **HAD)], "kept", id="kept-for-it"
        ),
        pytest.param(
            [volume("x", claimRef={"namespace": "default", "name": "other"})],
            None,
            id="of-another",
        ),
    ],
)
def test_a_claim_gets_the_smallest_volume_that_suits(
    volumes: list[Document], name: str | None
) -> None:
    found = find_volume(claim(), volumes)

    assert (found and found["metadata"]["name"]) == name


def test_of_several_default_classes_the_newest_counts() -> None:
    marked = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    old, new, other = (
        make("StorageClass", name, metadata={**notes, "creationTimestamp": at})
        for name, notes, at in (
            ("old", marked, "2026-01-01T00:00:00Z"),
            ("new", marked, "2026-01-02T00:00:00Z"),
            ("other", {}, "2026-01-03T00:00:00Z"),
        )
    )

    assert default_class([new, old, other]) is new
    assert default_class([other]) is None


def test_a_long_node_name_still_makes_a_label() -> None:
    assert node_label("n1") == "n1"
    assert len(node_label("n" * 200)) == 63
