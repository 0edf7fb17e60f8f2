"""Tables for the plugins of a page or less."""

from typing import Any

import pytest

from podyard.api.errors import ApiError
from podyard.api.scheme import CONFIG_MAP, NAMESPACE, NODE
from podyard.server.admission.parts import AdmissionRequest, Operation
from podyard.server.admission.plugins import (
    always_pull_images,
    default_toleration_seconds,
    namespace_lifecycle,
    priority,
    runtime_class,
    taint_nodes_by_condition,
)
from support.admission import admit, pod, request
from support.stored_objects import StoredObjects, make

UPDATE, DELETE = Operation.UPDATE, Operation.DELETE

# --- NamespaceLifecycle

SPACES = StoredObjects(
    make("Namespace", "web", status={"phase": "Active"}),
    make("Namespace", "going", status={"phase": "Terminating"}),
    make("Namespace", "marked", metadata={"deletionTimestamp": "x"}),
)
GOING = (
    'pods "p" is forbidden: unable to create new content in namespace {0} because it '
    "is being terminated"
)


def _namespace(name: str, operation: Operation) -> AdmissionRequest:
    return request(None, kind=NAMESPACE, name=name, namespace="", operation=operation)


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        pytest.param(request(pod()), "", id="active"),
        pytest.param(
            request(pod(), namespace="no"), 'namespaces "no" not found', id="absent"
        ),
        pytest.param(
            request(pod(), namespace="no", operation=UPDATE),
            'namespaces "no" not found',
            id="update-in-absent",
        ),
        pytest.param(
            request(None, namespace="no", operation=DELETE), "", id="delete-in-absent"
        ),
        pytest.param(
            request(pod(), namespace="going"), GOING.format("going"), id="terminating"
        ),
        pytest.param(
            request(pod(), namespace="marked"), GOING.format("marked"), id="marked"
        ),
        pytest.param(
            request(pod(), namespace="going", operation=UPDATE),
            "",
            id="update-in-terminating",
        ),
        pytest.param(
            request({"metadata": {"generateName": "p-"}}, name="", namespace="going"),
            GOING.format("going").replace('"p"', '"p-"'),
            id="generated-name",
        ),
        pytest.param(
            request({}, kind=NODE, namespace="", name="n"), "", id="cluster-scoped"
        ),
        pytest.param(_namespace("web", DELETE), "", id="delete-namespace"),
        pytest.param(
            _namespace("default", DELETE),
            'namespaces "default" is forbidden: this namespace may not be deleted',
            id="default-stays",
        ),
        pytest.param(
            _namespace("kube-system", DELETE),
            'namespaces "kube-system" is forbidden: this namespace may not be deleted',
            id="kube-system-stays",
        ),
        pytest.param(_namespace("kube-node-lease", DELETE), "", id="leases-may-go"),
        pytest.param(_namespace("default", Operation.CREATE), "", id="create-default"),
    ],
)
async def test_namespace_lifecycle(asked: AdmissionRequest, refusal: str) -> None:
    assert await admit(namespace_lifecycle.PART, asked, SPACES) == refusal


async def test_a_terminating_namespace_is_the_cause() -> None:
    assert namespace_lifecycle.PART.mutate is not None

    with pytest.raises(ApiError) as error:
        await namespace_lifecycle.PART.mutate(request(pod(), namespace="going"), SPACES)

    assert error.value.code == 403
    assert error.value.details == {
        "name": "p",
        "kind": "pods",
        "causes": [
            {
                "reason": "NamespaceTerminating",
                "message": "namespace going is being terminated",
                "field": "metadata.namespace",
            }
        ],
    }


# --- DefaultTolerationSeconds


def _toleration(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "operator": "Exists", "effect": "NoExecute", **more}


NOT_READY = _toleration("node.kubernetes.io/not-ready", tolerationSeconds=300)
UNREACHABLE = _toleration("node.kubernetes.io/unreachable", tolerationSeconds=300)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param(None, [NOT_READY, UNREACHABLE], id="none"),
        pytest.param(
            [_toleration("node.kubernetes.io/not-ready")],
            [_toleration("node.kubernetes.io/not-ready"), UNREACHABLE],
            id="one-given",
        ),
        pytest.param(
            [{"operator": "Exists"}], [{"operator": "Exists"}], id="everything"
        ),
        pytest.param(
            [{"operator": "Exists", "effect": "NoSchedule"}],
            [{"operator": "Exists", "effect": "NoSchedule"}, NOT_READY, UNREACHABLE],
            id="another-effect",
        ),
    ],
)
async def test_default_toleration_seconds(given: Any, wanted: Any) -> None:
    document = pod(tolerations=given) if given else pod()

    await admit(default_toleration_seconds.PART, request(document))

    assert document["spec"]["tolerations"] == wanted


# --- Priority

CLAIM = (
    'pods "p" is forbidden: the integer value of priority ({0}) must not be provided in '
    "pod spec; priority admission controller computed {1} from the given PriorityClass "
    "name"
)


@pytest.mark.parametrize(
    ("spec", "value", "refusal"),
    [
        pytest.param({}, 0, "", id="none"),
        pytest.param({"priority": 0}, 0, "", id="the-same"),
        pytest.param(
            {"priorityClassName": "system-node-critical"}, 2_000_001_000, "", id="node"
        ),
        pytest.param(
            {"priorityClassName": "system-cluster-critical"},
            2_000_000_000,
            "",
            id="all",
        ),
        pytest.param(
            {"priorityClassName": "gold"},
            None,
            'pods "p" is forbidden: no PriorityClass with name gold was found',
            id="unknown",
        ),
        pytest.param({"priority": 7}, 7, CLAIM.format(7, 0), id="claimed"),
        pytest.param(
            {"preemptionPolicy": "Never"},
            None,
            'pods "p" is forbidden: the string value of PreemptionPolicy (Never) must '
            "not be provided in pod spec; priority admission controller computed "
            "PreemptLowerPriority from the given PriorityClass name",
            id="policy",
        ),
    ],
)
async def test_priority(spec: Any, value: int | None, refusal: str) -> None:
    document = pod(**spec)

    assert await admit(priority.PART, request(document)) == refusal
    assert document["spec"].get("priority") == value
    if not refusal:
        assert document["spec"]["preemptionPolicy"] == "PreemptLowerPriority"


GOLD = make("PriorityClass", "gold", value=100, preemptionPolicy="Never")
USUAL = make("PriorityClass", "usual", value=7, globalDefault=True)
LOWER = make("PriorityClass", "lower", value=3, globalDefault=True)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param("gold", ("gold", 100, "Never"), id="named"),
        pytest.param("", ("lower", 3, "PreemptLowerPriority"), id="lowest-default"),
    ],
)
async def test_a_class_gives_value_and_policy(name: str, given: Any) -> None:
    document = pod(priorityClassName=name) if name else pod()

    classes = StoredObjects(GOLD, USUAL, LOWER)

    assert await admit(priority.PART, request(document), classes) == ""

    spec = document["spec"]
    assert given == (
        spec["priorityClassName"],
        spec["priority"],
        spec["preemptionPolicy"],
    )


async def test_an_update_keeps_the_priority() -> None:
    old = pod(priority=5, preemptionPolicy="Never")
    document = pod()

    await admit(priority.PART, request(document, operation=UPDATE, old_object=old))

    assert document["spec"]["priority"] == 5
    assert document["spec"]["preemptionPolicy"] == "Never"


# --- TaintNodesByCondition

TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
OTHER = {"key": "a", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("operation", "given", "wanted"),
    [
        pytest.param(Operation.CREATE, None, [TAINT], id="new"),
        pytest.param(Operation.CREATE, [OTHER], [OTHER, TAINT], id="tainted-already"),
        pytest.param(Operation.CREATE, [TAINT], [TAINT], id="the-same"),
        pytest.param(UPDATE, None, None, id="update"),
    ],
)
async def test_new_nodes_are_tainted(
    operation: Operation, given: Any, wanted: Any
) -> None:
    document = make("Node", "n", spec={"taints": given} if given else {})
    asked = request(document, kind=NODE, namespace="", operation=operation)

    await admit(taint_nodes_by_condition.PART, asked)

    assert document["spec"].get("taints") == wanted


# --- AlwaysPullImages


async def test_every_image_is_pulled() -> None:
    document = pod(
        initContainers=[{"name": "i", "image": "a", "imagePullPolicy": "Never"}],
        containers=[{"name": "c", "image": "b", "imagePullPolicy": "IfNotPresent"}],
        ephemeralContainers=[{"name": "e", "image": "c"}],
        volumes=[{"name": "v", "image": {"reference": "d", "pullPolicy": "Never"}}],
    )

    assert await admit(always_pull_images.PART, request(document)) == ""

    spec = document["spec"]
    assert spec["initContainers"][0]["imagePullPolicy"] == "Always"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert spec["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
    assert spec["volumes"][0]["image"]["pullPolicy"] == "Always"


async def test_a_later_plugin_cannot_undo_always_pull() -> None:
    document = pod(containers=[{"name": "c", "imagePullPolicy": "Never"}])
    assert always_pull_images.PART.validate is not None

    with pytest.raises(ApiError) as error:
        await always_pull_images.PART.validate(request(document), StoredObjects())

    assert error.value.message == (
        'pods "p" is forbidden: spec.containers[0].imagePullPolicy: Unsupported value: '
        '"Never": supported values: "Always"'
    )


@pytest.mark.parametrize(
    ("subresource", "image", "policy"),
    [
        pytest.param("", "i", "Never", id="no-new-image"),
        pytest.param("", "new", "Always", id="new-image"),
        pytest.param("ephemeralcontainers", "new", "Always", id="ephemeral"),
        pytest.param("status", "new", "Never", id="status"),
    ],
)
async def test_updates_are_looked_at_for_new_images(
    subresource: str, image: str, policy: str
) -> None:
    container = {"name": "c", "image": image, "imagePullPolicy": "Never"}
    document = pod(containers=[container])
    asked = request(
        document, operation=UPDATE, old_object=pod(), subresource=subresource
    )

    await admit(always_pull_images.PART, asked)

    assert document["spec"]["containers"][0]["imagePullPolicy"] == policy


# --- RuntimeClass

CLASSES = StoredObjects(
    make("RuntimeClass", "plain", handler="runc"),
    make(
        "RuntimeClass",
        "heavy",
        handler="kata",
        overhead={"podFixed": {"cpu": "250m", "memory": "1Gi"}},
        scheduling={
            "nodeSelector": {"kind": "big", "arch": "x"},
            "tolerations": [{"key": "kata", "operator": "Exists"}],
        },
    ),
)
TAIL = 'pods "p" is forbidden: pod rejected: '


@pytest.mark.parametrize(
    ("spec", "refusal"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"runtimeClassName": "plain"}, "", id="plain"),
        pytest.param({"runtimeClassName": "heavy"}, "", id="heavy"),
        pytest.param(
            {"runtimeClassName": "no"},
            f'{TAIL}RuntimeClass "no" not found',
            id="absent",
        ),
        pytest.param(
            {"runtimeClassName": "heavy", "overhead": {"cpu": "1"}},
            f"{TAIL}Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            id="other-overhead",
        ),
        pytest.param(
            {
                "runtimeClassName": "heavy",
                "overhead": {"cpu": "0.25", "memory": "1024Mi"},
            },
            "",
            id="same-overhead-in-other-words",
        ),
        pytest.param(
            {"runtimeClassName": "plain", "overhead": {"cpu": "1"}},
            f"{TAIL}Pod Overhead set without corresponding RuntimeClass defined Overhead",
            id="class-without-overhead",
        ),
        pytest.param(
            {"overhead": {"cpu": "1"}},
            f"{TAIL}Pod Overhead set without corresponding RuntimeClass defined Overhead",
            id="overhead-without-class",
        ),
        pytest.param(
            {"runtimeClassName": "heavy", "nodeSelector": {"kind": "small"}},
            'pods "p" is forbidden: conflict: '
            "runtimeClass.scheduling.nodeSelector[kind] = big; "
            "pod.spec.nodeSelector[kind] = small",
            id="selector-conflict",
        ),
        pytest.param(
            {"runtimeClassName": "heavy", "nodeSelector": {"kind": "big", "a": "b"}},
            "",
            id="selector-agrees",
        ),
    ],
)
async def test_runtime_class(spec: Any, refusal: str) -> None:
    assert await admit(runtime_class.PART, request(pod(**spec)), CLASSES) == refusal


async def test_the_class_is_written_into_the_pod() -> None:
    own = {"key": "own", "operator": "Equal", "value": "v"}
    document = pod(runtimeClassName="heavy", nodeSelector={"a": "b"}, tolerations=[own])

    await admit(runtime_class.PART, request(document), CLASSES)

    assert document["spec"]["overhead"] == {"cpu": "250m", "memory": "1Gi"}
    assert document["spec"]["nodeSelector"] == {"a": "b", "kind": "big", "arch": "x"}
    assert document["spec"]["tolerations"] == [
        own,
        {"key": "kata", "operator": "Exists"},
    ]


E, Q = "Exists", "Equal"


@pytest.mark.parametrize(
    ("first", "second", "merged"),
    [
        pytest.param([{"operator": E}], [{"key": "a", "operator": E}], "0", id="all"),
        pytest.param([{"key": "a", "operator": E}], [{"operator": E}], "1", id="later"),
        pytest.param(
            [{"key": "a", "value": "v"}], [{"key": "a", "value": "v"}], "0", id="equal"
        ),
        pytest.param(
            [{"key": "a", "value": "v"}],
            [{"key": "a", "value": "w"}],
            "01",
            id="values",
        ),
        pytest.param(
            [{"key": "a", "operator": E, "effect": "NoSchedule"}],
            [{"key": "a", "operator": E}],
            "1",
            id="every-effect",
        ),
        pytest.param(
            [
                {
                    "key": "a",
                    "operator": E,
                    "effect": "NoExecute",
                    "tolerationSeconds": 5,
                }
            ],
            [{"key": "a", "operator": E, "effect": "NoExecute"}],
            "1",
            id="for-ever-covers-seconds",
        ),
        pytest.param(
            [
                {
                    "key": "a",
                    "operator": E,
                    "effect": "NoExecute",
                    "tolerationSeconds": 5,
                }
            ],
            [
                {
                    "key": "a",
                    "operator": E,
                    "effect": "NoExecute",
                    "tolerationSeconds": 3,
                }
            ],
            "0",
            id="longer-covers-shorter",
        ),
    ],
)
def test_tolerations_are_merged(first: Any, second: Any, merged: str) -> None:
    everything = [*first, *second]

    assert runtime_class.merge_tolerations(first, second) == [
        everything[int(digit)] for digit in merged
    ]


@pytest.mark.parametrize(
    "part",
    [
        default_toleration_seconds.PART,
        priority.PART,
        always_pull_images.PART,
        runtime_class.PART,
    ],
    ids=lambda part: part.name,
)
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(request({"data": {}}, kind=CONFIG_MAP), id="config-map"),
        pytest.param(request({"target": {}}, subresource="binding"), id="binding"),
        pytest.param(request(None, operation=DELETE), id="delete"),
    ],
)
async def test_pod_plugins_leave_everything_else_alone(
    part: Any, asked: AdmissionRequest
) -> None:
    before = dict(asked.object) if asked.object else None

    assert await admit(part, asked) == ""
    assert asked.object == before
