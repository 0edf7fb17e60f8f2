"""Tables as kubectl prints them."""

from datetime import UTC, datetime, timedelta

import pytest

from podyard.server.app import load_resources
from podyard.server.table import build_row, build_table, human_duration

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RESOURCES = {(part.kind.group, part.kind.resource): part for part in load_resources()}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-0.5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11220, "3h7m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400, "2y"),
        (2 * 365 * 86400 + 86400 * 3, "2y3d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_a_span_is_short_and_exact_enough(seconds, text):
    assert human_duration(timedelta(seconds=seconds)) == text


def cells(resource: str, document, group: str = ""):
    part = RESOURCES[group, resource]
    metadata = {"name": "x", "creationTimestamp": "2026-01-01T23:00:00Z"}
    whole = {"metadata": {**metadata, **document.pop("metadata", {})}, **document}
    row = build_row(part, whole, NOW, include="Metadata")
    assert len(row["cells"]) == len(part.columns)
    return row["cells"]


def container(name="c", *, ready=False, restarts=0, **state):
    return {"name": name, "ready": ready, "restartCount": restarts, **state}


def running(**more):
    return container(ready=True, state={"running": {}}, **more)


def ended(code=0, reason="", **more):
    return container(state={"terminated": {"exitCode": code, "reason": reason}}, **more)


def waiting(reason, **more):
    return container(state={"waiting": {"reason": reason}}, **more)


ONE = {"containers": [{"name": "c"}]}
WITH_INIT = {
    "containers": [{"name": "c"}],
    "initContainers": [{"name": "c"}, {"name": "d"}],
}
SIDECAR = {
    "containers": [{"name": "c"}],
    "initContainers": [{"name": "s", "restartPolicy": "Always"}],
}
LAST = {"lastState": {"terminated": {"finishedAt": "2026-01-01T23:55:00Z"}}}


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        pytest.param(ONE, {"phase": "Pending"}, ["0/1", "Pending", "0"], id="pending"),
        pytest.param(
            ONE,
            {"phase": "Running", "containerStatuses": [running()]},
            ["1/1", "Running", "0"],
            id="running",
        ),
        pytest.param(
            ONE,
            {
                "phase": "Running",
                "containerStatuses": [waiting("CrashLoopBackOff", restarts=3, **LAST)],
            },
            ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
            id="crash-loop",
        ),
        pytest.param(
            ONE,
            {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]},
            ["0/1", "Completed", "0"],
            id="completed",
        ),
        pytest.param(
            ONE,
            {"phase": "Failed", "containerStatuses": [ended(3)]},
            ["0/1", "ExitCode:3", "0"],
            id="exit-code",
        ),
        pytest.param(
            ONE,
            {"phase": "Failed", "reason": "Evicted"},
            ["0/1", "Evicted", "0"],
            id="evicted",
        ),
        pytest.param(
            WITH_INIT,
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    ended(0, name="c"),
                    container("d", state={"running": {}}),
                ],
            },
            ["0/1", "Init:1/2", "0"],
            id="second-init",
        ),
        pytest.param(
            WITH_INIT,
            {
                "phase": "Pending",
                "initContainerStatuses": [ended(1, "Error", name="c")],
            },
            ["0/1", "Init:Error", "0"],
            id="init-error",
        ),
        pytest.param(
            WITH_INIT,
            {
                "phase": "Pending",
                "initContainerStatuses": [waiting("ImagePullBackOff", name="c")],
            },
            ["0/1", "Init:ImagePullBackOff", "0"],
            id="init-waiting",
        ),
        pytest.param(
            SIDECAR,
            {
                "phase": "Running",
                "initContainerStatuses": [
                    container(
                        "s", ready=True, started=True, state={"running": {}}, restarts=2
                    )
                ],
                "containerStatuses": [running()],
            },
            ["2/2", "Running", "2"],
            id="sidecar",
        ),
        pytest.param(
            ONE,
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "SchedulingGated",
                    }
                ],
            },
            ["0/1", "SchedulingGated", "0"],
            id="gated",
        ),
    ],
)
def test_a_pod_is_told_in_three_words(spec, status, expected):
    assert cells("pods", {"spec": spec, "status": status})[1:4] == expected


@pytest.mark.parametrize(
    ("phase", "expected"), [("Running", "Terminating"), ("Succeeded", "Succeeded")]
)
def test_a_pod_that_is_being_deleted_terminates(phase, expected):
    document = {
        "metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"},
        "spec": ONE,
        "status": {"phase": phase},
    }

    assert cells("pods", document)[2] == expected


@pytest.mark.parametrize(
    ("resource", "group", "document", "expected"),
    [
        pytest.param(
            "nodes",
            "",
            {
                "metadata": {"labels": {"node-role.kubernetes.io/worker": ""}},
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.2"},
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                },
            },
            ["x", "Ready,SchedulingDisabled", "worker", "60m", "v1.36.2", "10.0.0.1"],
            id="node",
        ),
        pytest.param(
            "services",
            "",
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.96.0.1",
                    "ports": [
                        {"port": 80, "nodePort": 30000},
                        {"port": 53, "protocol": "UDP"},
                    ],
                    "selector": {"a": "b"},
                }
            },
            [
                "x",
                "NodePort",
                "10.96.0.1",
                "<none>",
                "80:30000/TCP,53/UDP",
                "60m",
                "a=b",
            ],
            id="service",
        ),
        pytest.param(
            "deployments",
            "apps",
            {
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"a": "b"}},
                    "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
                },
                "status": {"readyReplicas": 1, "updatedReplicas": 2},
            },
            ["x", "1/3", 2, 0, "60m", "c", "i", "a=b"],
            id="deployment",
        ),
        pytest.param(
            "jobs",
            "batch",
            {
                "spec": {"completions": 2},
                "status": {
                    "succeeded": 2,
                    "startTime": "2026-01-01T23:00:00Z",
                    "completionTime": "2026-01-01T23:00:30Z",
                    "conditions": [{"type": "Complete", "status": "True"}],
                },
            },
            ["x", "Complete", "2/2", "30s", "60m", "", "", "<none>"],
            id="job",
        ),
        pytest.param(
            "cronjobs",
            "batch",
            {"spec": {"schedule": "* * * * *", "suspend": False}},
            ["x", "* * * * *", "<none>", "False", 0, "<none>", "60m", "", "", "<none>"],
            id="cronjob",
        ),
        pytest.param(
            "endpoints",
            "",
            {
                "subsets": [
                    {
                        "addresses": [{"ip": f"10.0.0.{i}"} for i in range(5)],
                        "ports": [{"port": 80}],
                    }
                ]
            },
            ["x", "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more...", "60m"],
            id="endpoints",
        ),
        pytest.param(
            "endpointslices",
            "discovery.k8s.io",
            {"addressType": "IPv4", "ports": [{"port": None}], "endpoints": []},
            ["x", "IPv4", "*", "<unset>", "60m"],
            id="endpointslice",
        ),
        pytest.param(
            "secrets",
            "",
            {"type": "Opaque", "data": {"a": ""}},
            ["x", "Opaque", 1, "60m"],
            id="secret",
        ),
        pytest.param(
            "controllerrevisions",
            "apps",
            {
                "metadata": {
                    "ownerReferences": [
                        {
                            "apiVersion": "apps/v1",
                            "kind": "StatefulSet",
                            "name": "web",
                            "controller": True,
                        }
                    ]
                },
                "revision": 3,
            },
            ["x", "statefulset.apps/web", 3, "60m"],
            id="controllerrevision",
        ),
        pytest.param(
            "events",
            "",
            {
                "involvedObject": {"kind": "Pod", "name": "p"},
                "type": "Normal",
                "reason": "Pulled",
                "message": " done ",
                "lastTimestamp": "2026-01-01T23:59:00Z",
                "source": {"component": "kubelet", "host": "n1"},
            },
            [
                "60s",
                "Normal",
                "Pulled",
                "pod/p",
                "",
                "kubelet, n1",
                "done",
                "<unknown>",
                1,
                "x",
            ],
            id="event",
        ),
    ],
)
def test_every_kind_has_its_usual_columns(resource, group, document, expected):
    assert cells(resource, document, group)[: len(expected)] == expected


@pytest.mark.parametrize(
    "part", RESOURCES.values(), ids=lambda part: part.kind.resource
)
def test_an_almost_empty_object_can_be_printed(part):
    row = build_row(part, {"metadata": {"name": "x"}}, NOW, include="None")

    assert len(row["cells"]) == len(part.columns)
    assert row["object"] is None


def test_a_table_tells_its_columns_once():
    part = RESOURCES["", "pods"]

    first = build_table([], columns=part.columns, list_metadata={})
    later = build_table([], columns=None, list_metadata={})

    assert first["columnDefinitions"][0]["format"] == "name"
    assert first["columnDefinitions"][5] == {
        "name": "IP",
        "type": "string",
        "format": "",
        "description": "IP",
        "priority": 1,
    }
    assert later["columnDefinitions"] is None


def test_the_served_kinds_are_these():
    served = sorted(f"{resource}.{group}".rstrip(".") for group, resource in RESOURCES)

    assert served == [
        "configmaps",
        "controllerrevisions.apps",
        "cronjobs.batch",
        "daemonsets.apps",
        "deployments.apps",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "events",
        "events.events.k8s.io",
        "jobs.batch",
        "leases.coordination.k8s.io",
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "poddisruptionbudgets.policy",
        "pods",
        "podtemplates",
        "priorityclasses.scheduling.k8s.io",
        "replicasets.apps",
        "runtimeclasses.node.k8s.io",
        "secrets",
        "serviceaccounts",
        "services",
        "statefulsets.apps",
        "storageclasses.storage.k8s.io",
    ]
