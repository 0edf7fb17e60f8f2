"""Why a Pod runs where it does: each constraint has a source, each node its lacks."""

import json

import pytest

import podyard.scheduler.plugins
from podyard.lib.parts import load_parts
from podyard.scheduler.explain import explain_schedule
from podyard.scheduler.parts import SchedulerPlugin
from support.stored_objects import make

PLUGINS = load_parts(podyard.scheduler.plugins, SchedulerPlugin)
CLASS = make(
    "RuntimeClass",
    "sandboxed",
    "",
    handler="runsc",
    overhead={"podFixed": {"cpu": "250m", "memory": "120Mi"}},
    scheduling={
        "nodeSelector": {"runtime": "runsc"},
        "tolerations": [{"key": "sandbox", "operator": "Exists"}],
    },
)


def node(name, *, labels=None, **spec):
    return make(
        "Node",
        name,
        "",
        metadata={"labels": labels or {}},
        spec=spec,
        status={"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}},
    )


NODES = [
    node("bare"),
    node("cordoned", labels={"runtime": "runsc", "disk": "ssd"}, unschedulable=True),
    node(
        "fits",
        labels={"runtime": "runsc", "disk": "ssd"},
        taints=[{"key": "sandbox", "value": "y", "effect": "NoSchedule"}],
    ),
    node(
        "tainted",
        labels={"runtime": "runsc", "disk": "hdd"},
        taints=[{"key": "gpu", "effect": "NoSchedule"}],
    ),
]


def pod(name="p", *, cpu="500m", applied=None, **spec):
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    annotations = {}
    if applied is not None:
        key = "kubectl.kubernetes.io/last-applied-configuration"
        annotations[key] = json.dumps({"spec": applied})
    return make(
        "Pod",
        name,
        metadata={"annotations": annotations},
        spec={"containers": [container], **spec},
    )


def merged(**more):
    return pod(
        runtimeClassName="sandboxed",
        overhead={"cpu": "250m", "memory": "120Mi"},
        nodeSelector={"runtime": "runsc", "disk": "ssd"},
        tolerations=[
            {"key": "sandbox", "operator": "Exists"},
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
        ],
        **more,
    )


def explain(of, pods=(), *, runtime_class=CLASS):
    return explain_schedule(
        of, NODES, [of, *pods], PLUGINS, runtime_class=runtime_class
    )


def constraints(told):
    return {one["text"]: one["from"] for one in told["constraints"]}


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        pytest.param(
            None,
            "RuntimeClass sandboxed (the Pod may say the same)",
            id="nobody-knows-what-was-sent",
        ),
        pytest.param(
            {"nodeSelector": {"disk": "ssd"}}, "RuntimeClass sandboxed", id="class"
        ),
        pytest.param(
            {"nodeSelector": {"disk": "ssd", "runtime": "runsc"}},
            "the Pod and RuntimeClass sandboxed",
            id="both",
        ),
    ],
)
def test_a_constraint_names_its_source(applied, expected):
    told = constraints(explain(merged(applied=applied)))

    assert told["runtime=runsc"] == expected
    assert told["disk=ssd"] == "the Pod"
    assert told["node.kubernetes.io/not-ready:NoExecute for 300s"] == "every Pod has it"


def test_each_node_says_all_it_lacks_and_the_fitting_one_nothing():
    told = explain(merged())

    assert {one["name"]: one["lacks"] for one in told["nodes"]} == {
        "bare": [
            "it has no label disk (wanted: ssd)",
            "it has no label runtime (wanted: runsc)",
        ],
        "cordoned": ["it is cordoned (spec.unschedulable)"],
        "fits": [],
        "tainted": [
            "the Pod does not tolerate its taint gpu=:NoSchedule",
            "its label disk is hdd (wanted: ssd)",
        ],
    }
    assert told["verdict"] == "fits is chosen of 1 that fit"


def test_overhead_counts_and_tells_where_it_is_from():
    taken = pod("other", cpu="500m", nodeName="fits")

    told = explain(merged(), [taken])

    assert told["requests"] == {
        "containers": {"cpu": "500m"},
        "overhead": {"cpu": "250m", "memory": "120Mi"},
        "total": {"cpu": "750m", "memory": "120Mi"},
        "overheadFrom": "RuntimeClass sandboxed",
    }
    fits = next(one for one in told["nodes"] if one["name"] == "fits")
    assert fits["lacks"] == ["too little cpu: 750m asked, 500m of 1000m free"]
    assert told["verdict"].startswith("0/4 nodes are available")


def test_a_bound_pod_does_not_count_against_itself():
    told = explain(merged(nodeName="fits", cpu="700m"))

    assert told["verdict"] == "runs on fits, which would be chosen again"
    assert [one["name"] for one in told["nodes"] if one["here"]] == ["fits"]


def test_a_class_that_changed_or_is_gone_is_told():
    changed = {**CLASS, "scheduling": {"nodeSelector": {"runtime": "new"}}}

    told = explain(merged(), runtime_class=changed)
    gone = explain(merged(), runtime_class=None)

    assert constraints(told)["runtime=runsc"] == "the Pod"
    assert constraints(told)["runtime=new"] == (
        "RuntimeClass sandboxed, changed after the Pod was made"
    )
    assert gone["runtimeClass"] == {"name": "sandboxed", "exists": False}
    assert gone["requests"]["overheadFrom"] == (
        "RuntimeClass sandboxed as it was when the Pod was made"
    )


def test_a_pod_without_a_class_has_only_its_own_constraints():
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "zone", "operator": "In", "values": ["a", "b"]}
                        ]
                    }
                ]
            }
        }
    }

    told = explain(pod(affinity=affinity), runtime_class=None)

    assert constraints(told) == {"zone In a b": "the Pod"}
    assert told["runtimeClass"] == {}
    assert told["nodes"][0]["lacks"] == [
        "no term of the required node affinity fits its labels"
    ]


def neighbour(name, where, labels=None, **spec):
    return make(
        "Pod",
        name,
        "web",
        metadata={"labels": labels or {}},
        spec={"nodeName": where, **spec},
    )


def test_what_a_pod_asks_of_others_is_told_with_what_each_node_lacks_of_it():
    web = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "runtime"}
    db = {
        "labelSelector": {
            "matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]
        },
        "namespaces": ["data"],
        "topologyKey": "disk",
    }
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    spread = {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **web}
    asked = pod(
        tolerations=[{"operator": "Exists"}],
        affinity={
            "podAffinity": {
                required: [web],
                preferred: [{"weight": 3, "podAffinityTerm": db}],
            },
            "podAntiAffinity": {required: [{**web, "topologyKey": "disk"}]},
        },
        topologySpreadConstraints=[{**spread, "topologyKey": "disk"}],
    )
    asked["metadata"] |= {"namespace": "web", "labels": {"app": "web"}}
    others = [
        neighbour("w", "tainted", {"app": "web"}),
        neighbour(
            "x",
            "fits",
            affinity={"podAntiAffinity": {required: [{**web, "topologyKey": "disk"}]}},
        ),
    ]

    told = explain(asked, others, runtime_class=None)

    assert [
        (one["kind"], one["text"])
        for one in told["constraints"]
        if one["kind"] != "toleration"
    ] == [
        ("required Pod affinity", "Pods app=web by runtime"),
        ("preferred Pod affinity", "Pods app In db in data by disk (weight 3)"),
        ("required Pod anti-affinity", "Pods app=web by disk"),
        ("topology spread", "Pods app=web by disk, skew at most 1, DoNotSchedule"),
    ]
    assert {one["name"]: one["lacks"] for one in told["nodes"]} == {
        "bare": [
            "it has no label disk, which the topology spread goes by",
            "it has no label runtime, which the Pod's affinity goes by",
        ],
        "cordoned": ["a Pod in disk=ssd keeps it away by its own anti-affinity"],
        "fits": ["a Pod in disk=ssd keeps it away by its own anti-affinity"],
        "tainted": [
            "disk=hdd would lead the emptiest by 2 Pods (1 allowed)",
            "a Pod that the Pod's anti-affinity names is in disk=hdd",
        ],
    }
