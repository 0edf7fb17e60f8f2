"""Services, endpoints and host ports become rules."""

import pytest

from podyard.network.decide import (
    HostPort,
    NetworkFacts,
    ServiceRule,
    decide_ruleset,
    host_ports,
    service_rules,
)

FACTS = NetworkFacts("podyard-p", "pyd-p", "10.88.0.0/24", "10.96.0.0/20", True)


def service(name="web", *, ip="10.96.0.5", ports=None, **spec):
    ports = ports or [{"name": "http", "port": 80}]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": ports, **spec},
    }


def endpoint_slice(
    *endpoints, service_name="web", port=8080, port_name="http", **fields
):
    return {
        "metadata": {
            "name": f"{service_name}-x",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "ports": [{"name": port_name, "port": port}],
        "endpoints": list(endpoints),
        **fields,
    }


def endpoint(ip, **conditions):
    return {"addresses": [ip], "conditions": conditions}


def pod(
    name="web", *, ip="10.88.0.9", ports=None, created="2026-01-01T00:00:00Z", **spec
):
    ports = ports or [{"containerPort": 80, "hostPort": 8080}]
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": created,
        },
        "spec": {"containers": [{"name": "c", "ports": ports}], **spec},
        "status": {"podIP": ip, "phase": "Running"},
    }


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param(
            [endpoint("10.88.0.2")], (("10.88.0.2", 8080),), id="no-condition-is-ready"
        ),
        pytest.param(
            [endpoint("10.88.0.2", ready=False)], (), id="not-ready-is-left-out"
        ),
        pytest.param(
            [
                endpoint("10.88.0.3", ready=True),
                endpoint("10.88.0.2", ready=False, serving=True, terminating=True),
            ],
            (("10.88.0.3", 8080),),
            id="terminating-is-left-out-while-another-is-ready",
        ),
        pytest.param(
            [endpoint("10.88.0.2", ready=False, serving=True, terminating=True)],
            (("10.88.0.2", 8080),),
            id="terminating-serves-when-nobody-else-does",
        ),
        pytest.param([endpoint("fd00::1")], (), id="another-family"),
    ],
)
def test_endpoints_that_serve_are_used(endpoints, expected):
    (rule,) = service_rules([service()], [endpoint_slice(*endpoints)])

    assert rule == ServiceRule(("10.96.0.5",), 80, "TCP", expected)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(service(ip="None"), id="headless"),
        pytest.param(service(ip=""), id="no-address-yet"),
        pytest.param(
            service(type="ExternalName", externalName="example.com"), id="external-name"
        ),
        pytest.param(service(ip="fd00::5"), id="ipv6"),
    ],
)
def test_service_without_an_ipv4_address_has_no_rule(document):
    assert service_rules([document], []) == ()


def test_ports_are_matched_by_name():
    ports = [
        {"name": "a", "port": 80},
        {"name": "b", "port": 81, "protocol": "UDP", "nodePort": 30081},
    ]
    slices = [
        endpoint_slice(endpoint("10.88.0.2"), port_name="a", port=8000),
        endpoint_slice(endpoint("10.88.0.3"), port_name="b", port=8001),
    ]

    rules = service_rules([service(ports=ports)], slices)

    assert rules == (
        ServiceRule(("10.96.0.5",), 80, "TCP", (("10.88.0.2", 8000),)),
        ServiceRule(("10.96.0.5",), 81, "UDP", (("10.88.0.3", 8001),), node_port=30081),
    )


def test_slice_of_another_namespace_or_service_does_not_count():
    other = endpoint_slice(endpoint("10.88.0.2"))
    other["metadata"]["namespace"] = "other"

    (rule,) = service_rules(
        [service()], [other, endpoint_slice(endpoint("10.88.0.3"), service_name="db")]
    )

    assert rule.endpoints == ()


def test_external_ips_lead_to_the_service_too():
    (rule,) = service_rules([service(externalIPs=["192.0.2.7"])], [])

    assert rule.ips == ("10.96.0.5", "192.0.2.7")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(pod(), (HostPort(8080, "TCP", ("10.88.0.9", 80)),), id="plain"),
        pytest.param(pod(ip=""), (), id="no-address-yet"),
        pytest.param(pod(hostNetwork=True), (), id="host-network"),
        pytest.param(pod(ports=[{"containerPort": 80}]), (), id="no-host-port"),
        pytest.param(
            pod(
                ports=[
                    {
                        "containerPort": 53,
                        "hostPort": 5353,
                        "protocol": "UDP",
                        "hostIP": "127.0.0.1",
                    }
                ]
            ),
            (HostPort(5353, "UDP", ("10.88.0.9", 53), host_ip="127.0.0.1"),),
            id="with-address",
        ),
        pytest.param(
            pod(ports=[{"containerPort": 80, "hostPort": 81, "hostIP": "0.0.0.0"}]),
            (HostPort(81, "TCP", ("10.88.0.9", 80)),),
            id="any-address",
        ),
        pytest.param(
            pod(ports=[{"containerPort": 80, "hostPort": 81, "hostIP": "fd00::1"}]),
            (),
            id="ipv6-address",
        ),
    ],
)
def test_host_ports_are_read_from_pods(document, expected):
    assert host_ports([document]) == expected


def test_ended_pod_gives_its_host_port_back():
    document = pod()
    document["status"]["phase"] = "Succeeded"

    assert host_ports([document]) == ()


def test_sidecar_has_host_ports_an_init_container_has_not():
    ports = [{"containerPort": 1, "hostPort": 2}]
    init = [
        {"name": "i", "ports": ports},
        {
            "name": "s",
            "ports": [{"containerPort": 3, "hostPort": 4}],
            "restartPolicy": "Always",
        },
    ]

    found = host_ports([pod(ports=[{"containerPort": 9}], initContainers=init)])

    assert [port.port for port in found] == [4]


def test_older_pod_keeps_a_port_that_two_claim():
    younger = pod("a", ip="10.88.0.3", created="2026-01-02T00:00:00Z")
    older = pod("b", ip="10.88.0.4")

    assert host_ports([younger, older]) == (HostPort(8080, "TCP", ("10.88.0.4", 80)),)


def test_table_is_replaced_in_one_transaction():
    text = decide_ruleset(FACTS)

    assert text.splitlines()[:3] == [
        "table inet podyard-p",
        "delete table inet podyard-p",
        "table inet podyard-p {",
    ]


def test_pods_are_masqueraded_when_they_leave():
    assert (
        'ip saddr 10.88.0.0/24 ip daddr != { 10.88.0.0/24, 224.0.0.0/4 } oifname != { "pyd-p", "lo" } masquerade'
        in decide_ruleset(FACTS)
    )


def test_service_leads_to_its_only_endpoint():
    text = decide_ruleset(
        FACTS,
        services=[ServiceRule(("10.96.0.1",), 443, "TCP", (("10.88.0.1", 6443),))],
    )

    assert "10.96.0.1 . tcp . 443 : goto service-10.96.0.1-tcp-443" in text
    assert "meta l4proto tcp dnat ip to 10.88.0.1:6443" in text


def test_endpoints_share_by_chance():
    endpoints = (("10.88.0.2", 80), ("10.88.0.3", 81))
    text = decide_ruleset(
        FACTS, services=[ServiceRule(("10.96.0.2",), 80, "UDP", endpoints, 30080)]
    )

    assert (
        "dnat ip addr . port to numgen random mod 2 map { 0 : 10.88.0.2 . 80, 1 : 10.88.0.3 . 81 }"
        in text
    )
    assert "udp . 30080 : goto service-10.96.0.2-udp-80" in text


def test_service_without_endpoints_is_refused_not_rewritten():
    text = decide_ruleset(FACTS, services=[ServiceRule(("10.96.0.2",), 80, "TCP", ())])

    assert "10.96.0.2" not in text
    assert text.count("ip daddr 10.96.0.0/20 reject") == 2


def test_target_may_reach_itself():
    text = decide_ruleset(FACTS, ports=[HostPort(8080, "TCP", ("10.88.0.9", 80))])

    assert "elements = { 10.88.0.9 . 10.88.0.9 }" in text
    assert "tcp . 8080 : goto host-any-tcp-8080" in text


@pytest.mark.parametrize("filtered", [True, False])
def test_pods_are_masqueraded_among_themselves_only_without_br_netfilter(filtered):
    facts = NetworkFacts("t", "b", "10.88.0.0/24", "10.96.0.0/20", filtered)

    text = decide_ruleset(facts)

    assert (
        'oifname "b" ct status dnat ip saddr 10.88.0.0/24 masquerade' in text
    ) is not filtered


def test_same_input_gives_the_same_text():
    services = service_rules([service("b", ip="10.96.0.9"), service("a")], [])

    assert services == service_rules([service("a"), service("b", ip="10.96.0.9")], [])
