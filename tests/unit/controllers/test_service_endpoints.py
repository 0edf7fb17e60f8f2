"""Which Pods serve a Service: slices and Endpoints, by tables."""

from typing import Any

import pytest

from podyard.api.documents import Document
from podyard.controllers.selected_pods import SelectedPods
from podyard.controllers.service_endpoints import (
    MANAGED_BY,
    OVER_CAPACITY,
    SERVICE_NAME,
    SLICE_SIZE,
    build_endpoints,
    build_mirrors,
    build_slices,
    find_port,
    is_mirrored,
    is_selecting,
)


def service(*ports: Document, name: str = "web", **spec: Any) -> Document:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": "s1"},
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "10.96.0.9",
            "ports": list(ports) or [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            **spec,
        },
    }


def pod(
    name: str, ip: str = "10.1.0.2", *, ready: bool = True, **more: Any
) -> Document:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "labels": {"app": "web"},
            **more.pop("metadata", {}),
        },
        "spec": {"nodeName": "n1", **more.pop("spec", {})},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}] if ip else [],
            "conditions": conditions,
            **more.pop("status", {}),
        },
    }


GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("spec", "document", "expected"),
    [
        pytest.param({}, pod("a"), (True, True, False), id="ready"),
        pytest.param({}, pod("a", ready=False), (False, False, False), id="not-ready"),
        pytest.param(
            {}, pod("a", metadata=GOING), (False, True, True), id="still-serves"
        ),
        pytest.param(
            {"publishNotReadyAddresses": True},
            pod("a", ready=False, metadata=GOING),
            (True, False, True),
            id="published-anyhow",
        ),
    ],
)
def test_conditions_tell_ready_serving_and_terminating(spec, document, expected):
    plan = build_slices(service(**spec), [document], [])

    (endpoint,) = plan.create[0]["endpoints"]
    conditions = endpoint["conditions"]
    assert (
        conditions["ready"],
        conditions["serving"],
        conditions["terminating"],
    ) == expected


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(pod("a", ""), id="no-address"),
        pytest.param(pod("a", status={"phase": "Succeeded"}), id="succeeded"),
        pytest.param(pod("a", status={"phase": "Failed"}), id="failed"),
        pytest.param(pod("a", "fd00::1"), id="other-family"),
    ],
)
def test_pods_that_cannot_serve_are_left_out(document):
    (made,) = build_slices(service(), [document], []).create

    assert made["endpoints"] == []
    assert made["ports"] == []


def test_a_new_slice_names_its_service_and_its_owner():
    headless = service(clusterIP="None")
    headless["metadata"]["labels"] = {"team": "blue", MANAGED_BY: "me"}
    (made,) = build_slices(headless, [pod("a")], []).create

    assert made["metadata"]["labels"] == {
        "team": "blue",
        "service.kubernetes.io/headless": "",
        SERVICE_NAME: "web",
        MANAGED_BY: "endpointslice-controller.k8s.io",
    }
    assert made["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "name": "web",
            "uid": "s1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert made["metadata"]["name"].startswith("web-")
    assert made["endpoints"][0]["targetRef"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "a",
        "uid": "uid-a",
    }
    assert made["endpoints"][0]["nodeName"] == "n1"


def container(number: int, protocol: str = "TCP") -> Document:
    ports = [{"name": "http", "containerPort": number, "protocol": protocol}]
    return {"name": "c", "ports": ports}


@pytest.mark.parametrize(
    ("port", "spec", "expected"),
    [
        pytest.param({"port": 80}, {}, 80, id="no-target"),
        pytest.param({"port": 80, "targetPort": 8080}, {}, 8080, id="number"),
        pytest.param(
            {"port": 80, "targetPort": "http"},
            {"containers": [container(8080)]},
            8080,
            id="name",
        ),
        pytest.param(
            {"port": 80, "targetPort": "http"},
            {"containers": [container(8080, "UDP")]},
            None,
            id="name-of-another-protocol",
        ),
        pytest.param(
            {"port": 80, "targetPort": "http"},
            {
                "containers": [{"name": "c"}],
                "initContainers": [{**container(9), "restartPolicy": "Always"}],
            },
            9,
            id="name-of-a-sidecar",
        ),
        pytest.param(
            {"port": 80, "targetPort": "http"},
            {"containers": [], "initContainers": [container(9)]},
            None,
            id="init-container-does-not-serve",
        ),
    ],
)
def test_target_port_is_found(port, spec, expected):
    assert find_port(pod("a", spec=spec), port) == expected


def test_pods_with_other_numbers_for_a_name_get_a_slice_of_their_own():
    named = service({"name": "h", "port": 80, "targetPort": "http"})
    one = pod("a", "10.1.0.2", spec={"containers": [container(8080)]})
    two = pod("b", "10.1.0.3", spec={"containers": [container(9090)]})

    plan = build_slices(named, [one, two], [])

    ports = {
        item["endpoints"][0]["addresses"][0]: item["ports"][0]["port"]
        for item in plan.create
    }
    assert ports == {"10.1.0.2": 8080, "10.1.0.3": 9090}
    assert len({item["metadata"]["name"] for item in plan.create}) == 2


def test_hostname_is_told_below_the_pods_own_subdomain():
    mine = pod("a", spec={"hostname": "db-0", "subdomain": "web"})
    other = pod("b", "10.1.0.3", spec={"hostname": "db-1", "subdomain": "else"})

    (made,) = build_slices(service(clusterIP="None"), [mine, other], []).create

    assert [e.get("hostname") for e in made["endpoints"]] == ["db-0", None]


def test_many_pods_fill_slices_and_stay_where_they_are():
    pods = [pod(f"p{n:03}", f"10.1.{n // 250}.{n % 250 + 2}") for n in range(250)]
    made = build_slices(service(), pods, []).create
    assert sorted(len(item["endpoints"]) for item in made) == [50, 100, 100]

    assert not build_slices(service(), pods, made)
    plan = build_slices(service(), pods[1:], made)

    assert (len(plan.create), len(plan.update), len(plan.delete)) == (0, 1, 0)
    assert len(plan.update[0]["endpoints"]) == SLICE_SIZE - 1


def test_the_last_endpoint_leaves_an_empty_slice_behind():
    (made,) = build_slices(service(), [pod("a")], []).create

    plan = build_slices(service(), [], [made])

    (left,) = plan.update
    assert left["metadata"]["name"] == made["metadata"]["name"]
    assert left["endpoints"] == []
    assert not build_slices(service(), [], [left])


def test_a_changed_target_port_changes_the_slice_in_place():
    (made,) = build_slices(service(), [pod("a")], []).create

    plan = build_slices(service({"port": 80, "targetPort": 81}), [pod("a")], [made])

    assert [item["ports"][0]["port"] for item in plan.update] == [81]
    assert not plan.create
    assert not plan.delete


def test_a_slice_of_a_family_that_went_is_deleted():
    (made,) = build_slices(service(), [pod("a")], []).create

    plan = build_slices(service(ipFamilies=["IPv6"]), [pod("a")], [made])

    assert plan.delete == (made,)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, True, id="selector"),
        pytest.param({"selector": None}, False, id="none"),
        pytest.param({"selector": {}}, False, id="empty"),
        pytest.param({"type": "ExternalName"}, False, id="external-name"),
    ],
)
def test_only_services_with_a_selector_are_kept(spec, expected):
    assert is_selecting(service(**spec)) is expected


# --- Endpoints ---


def test_endpoints_tell_ready_and_not_ready_addresses():
    pods = [
        pod("a", "10.1.0.2"),
        pod("b", "10.1.0.3", ready=False),
        pod("c", "10.1.0.4", metadata=GOING),
    ]
    made = build_endpoints(service(), pods, None)

    assert made is not None
    assert [
        (
            [a["ip"] for a in subset["addresses"]],
            [a["ip"] for a in subset["notReadyAddresses"]],
            subset["ports"],
        )
        for subset in made["subsets"]
    ] == [(["10.1.0.2"], ["10.1.0.3"], [{"port": 80, "protocol": "TCP"}])]
    assert build_endpoints(service(), pods, made) is None


@pytest.mark.parametrize(
    ("document", "pods", "expected"),
    [
        pytest.param(service(), [], [], id="nobody"),
        pytest.param(
            service(publishNotReadyAddresses=True),
            [pod("a", ready=False)],
            [(["10.1.0.2"], [80])],
            id="published-anyhow",
        ),
        pytest.param(
            service({"name": "a", "port": 1}, {"name": "b", "port": 2}),
            [pod("a")],
            [(["10.1.0.2"], [1, 2])],
            id="ports-share-a-subset",
        ),
        pytest.param(
            service(
                {"name": "a", "port": 1}, {"name": "b", "targetPort": "x", "port": 2}
            ),
            [pod("a")],
            [(["10.1.0.2"], [1])],
            id="unknown-name-is-left-out",
        ),
        pytest.param(
            service(clusterIP="None", ports=[]),
            [pod("a")],
            [(["10.1.0.2"], [])],
            id="headless-without-ports",
        ),
    ],
)
def test_subsets(document, pods, expected):
    made = build_endpoints(document, pods, None)

    assert made is not None
    assert [
        (
            [a["ip"] for a in subset.get("addresses", ())],
            [port["port"] for port in subset.get("ports", ())],
        )
        for subset in made["subsets"]
    ] == expected


def test_more_than_a_thousand_addresses_are_cut_and_said_so():
    pods = [pod(f"p{n}", f"10.1.{n // 250}.{n % 250}") for n in range(1001)]
    made = build_endpoints(service(), pods, None)

    assert made is not None
    assert len(made["subsets"][0]["addresses"]) == 1000
    assert made["metadata"]["annotations"] == {OVER_CAPACITY: "truncated"}


# --- who hears of what ---


def test_a_pod_wakes_the_services_that_select_it_before_or_after():
    selected = SelectedPods()
    selected.take_service(None, service())
    selected.take_service(None, service(name="all", selector={"team": "blue"}))
    before = pod("a")
    after = pod("a", metadata={"labels": {"team": "blue"}})

    assert list(selected.take_pod(None, before)) == [("default", "web")]
    assert list(selected.take_pod(before, before)) == []
    assert list(selected.take_pod(before, after)) == [
        ("default", "web"),
        ("default", "all"),
    ]
    assert selected.pods_of(service(name="all", selector={"team": "blue"})) == [after]
    assert list(selected.take_pod(after, None)) == [("default", "all")]


def test_a_selector_that_changes_or_goes_is_heard_no_more():
    selected = SelectedPods()
    narrow = service(name="narrow", selector={"app": "web", "team": "blue"})
    other = service(name="narrow", selector={"app": "db"})
    blue = pod("a", metadata={"labels": {"app": "web", "team": "blue"}})
    plain = pod("b", metadata={"labels": {"team": "blue"}})
    elsewhere = pod("c", metadata={"labels": {"app": "web", "team": "blue"}})
    elsewhere["metadata"]["namespace"] = "other"

    selected.take_service(None, narrow)
    assert list(selected.take_pod(None, blue)) == [("default", "narrow")]
    assert list(selected.take_pod(None, plain)) == []
    assert list(selected.take_pod(None, elsewhere)) == []
    selected.take_service(narrow, other)
    assert list(selected.take_pod(blue, None)) == []
    selected.take_service(other, None)
    assert list(selected.take_pod(None, blue)) == []


# --- Endpoints that a person wrote ---


def written(*subsets: Document, **metadata: Any) -> Document:
    return {
        "metadata": {"name": "db", "namespace": "default", "uid": "e1", **metadata},
        "subsets": list(subsets),
    }


@pytest.mark.parametrize(
    ("metadata", "spec", "expected"),
    [
        pytest.param({}, {"selector": None}, True, id="no-selector"),
        pytest.param({}, {}, False, id="selector"),
        pytest.param({}, None, False, id="no-service"),
        pytest.param(
            {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            {"selector": None},
            False,
            id="asked-not-to",
        ),
        pytest.param(
            {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}},
            {"selector": None},
            False,
            id="leader-election",
        ),
    ],
)
def test_only_endpoints_nobody_else_shows_are_mirrored(metadata, spec, expected):
    of = None if spec is None else service(**spec)

    assert is_mirrored(written(**metadata), of) is expected


def test_each_family_and_each_set_of_ports_is_a_mirror_of_its_own():
    postgres = {"name": "sql", "port": 5432, "protocol": "TCP"}
    plan = build_mirrors(
        written(
            {
                "addresses": [{"ip": "192.0.2.1", "hostname": "a"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.2"}],
                "ports": [postgres],
            },
            {"addresses": [{"ip": "192.0.2.3"}], "ports": [{"port": 1}]},
            labels={"team": "blue"},
        ),
        [],
    )

    assert [
        (item["addressType"], item["ports"][0]["port"], item["endpoints"])
        for item in plan.create
    ] == [
        (
            "IPv4",
            5432,
            [
                {
                    "addresses": ["192.0.2.1"],
                    "conditions": {"ready": True},
                    "hostname": "a",
                },
                {"addresses": ["192.0.2.2"], "conditions": {"ready": False}},
            ],
        ),
        ("IPv4", 1, [{"addresses": ["192.0.2.3"], "conditions": {"ready": True}}]),
        ("IPv6", 5432, [{"addresses": ["fd00::1"], "conditions": {"ready": True}}]),
    ]
    metadata = plan.create[0]["metadata"]
    assert metadata["labels"] == {
        "team": "blue",
        SERVICE_NAME: "db",
        MANAGED_BY: "endpointslicemirroring-controller.k8s.io",
    }
    assert metadata["ownerReferences"][0]["kind"] == "Endpoints"


def test_a_mirror_is_right_until_the_endpoints_change():
    subset = {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}
    made = build_mirrors(written(subset), []).create

    assert not build_mirrors(written(subset), made)
    assert build_mirrors(written(), made).delete == made
