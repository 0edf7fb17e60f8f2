"""Services, endpoints and host ports become rules."""

import pytest

from podyard.network.build import HostPort, ServiceRule, host_ports, service_rules
from podyard.network.decide import (
    Flow,
    NetworkFacts,
    decide_ruleset,
    decide_table,
    stale_flows,
    udp_targets,
)
from podyard.network.table import change_table

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
    ],
)
def test_service_without_an_address_has_no_rule(document):
    assert service_rules([document], []) == ()


def test_each_family_of_a_service_leads_to_endpoints_of_its_own():
    both = service(clusterIPs=["10.96.0.5", "fd77::5"], externalIPs=["fd99::1"])
    slices = [
        endpoint_slice(endpoint("10.88.0.2")),
        endpoint_slice(endpoint("fd88::2"), addressType="IPv6"),
    ]

    four, six = service_rules([both], slices)

    assert (four.ips, four.endpoints) == (("10.96.0.5",), (("10.88.0.2", 8080),))
    assert (six.ips, six.endpoints) == (("fd77::5",), (("fd88::2", 8080),))
    assert (four.external_ips, six.external_ips) == ((), ("fd99::1",))


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

    assert rule.ips == ("10.96.0.5",)
    assert rule.external_ips == ("192.0.2.7",)


@pytest.mark.parametrize(
    ("ingress", "expected"),
    [
        pytest.param({"ip": "192.0.2.8"}, ("192.0.2.8",), id="address"),
        pytest.param({"hostname": "lb.example.com"}, (), id="name"),
        pytest.param({"ip": "192.0.2.8", "ipMode": "Proxy"}, (), id="proxy"),
    ],
)
def test_addresses_of_a_load_balancer_lead_to_the_service(ingress, expected):
    document = service() | {"status": {"loadBalancer": {"ingress": [ingress]}}}

    (rule,) = service_rules([document], [])

    assert rule.external_ips == expected


HERE, ELSEWHERE = ("10.88.0.2", 8080), ("192.0.2.1", 8080)


@pytest.mark.parametrize(
    ("spec", "ips", "expected"),
    [
        pytest.param(
            {}, [HERE, ELSEWHERE], ((HERE, ELSEWHERE), None, False, False), id="cluster"
        ),
        pytest.param(
            {"externalTrafficPolicy": "Local"},
            [HERE, ELSEWHERE],
            ((HERE, ELSEWHERE), (HERE,), False, False),
            id="external-local",
        ),
        pytest.param(
            {"externalTrafficPolicy": "Local"},
            [ELSEWHERE],
            ((ELSEWHERE,), (), False, True),
            id="external-local-without-any",
        ),
        pytest.param(
            {"internalTrafficPolicy": "Local"},
            [HERE, ELSEWHERE],
            ((HERE,), (HERE, ELSEWHERE), False, False),
            id="internal-local",
        ),
        pytest.param(
            {"internalTrafficPolicy": "Local"},
            [ELSEWHERE],
            ((), (ELSEWHERE,), True, False),
            id="internal-local-without-any",
        ),
        pytest.param(
            {"internalTrafficPolicy": "Local"},
            [],
            ((), None, False, False),
            id="nobody-at-all-is-refused-not-dropped",
        ),
    ],
)
def test_traffic_policies_keep_to_this_node(spec, ips, expected):
    slices = [endpoint_slice(*(endpoint(ip) for ip, _ in ips))]

    (rule,) = service_rules([service(**spec)], slices, pod_cidrs=("10.88.0.0/24",))

    assert (
        rule.endpoints,
        rule.outside,
        rule.drops_inside,
        rule.drops_outside,
    ) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, 0, id="none"),
        pytest.param({"sessionAffinity": "ClientIP"}, 10800, id="default"),
        pytest.param(
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
            },
            7,
            id="seconds",
        ),
    ],
)
def test_affinity_has_a_time(spec, expected):
    (rule,) = service_rules([service(**spec)], [])

    assert rule.affinity_s == expected


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

    assert "meta l4proto udp numgen random mod 2 0 dnat ip to 10.88.0.2:80" in text
    assert "meta l4proto udp dnat ip to 10.88.0.3:81" in text
    assert "udp . 30080 : goto service-10.96.0.2-udp-80" in text


def test_service_without_endpoints_is_refused_not_rewritten():
    text = decide_ruleset(FACTS, services=[ServiceRule(("10.96.0.2",), 80, "TCP", ())])

    assert "dnat" not in text.replace("ct status dnat", "").replace("dstnat", "")
    assert "10.96.0.2 . tcp . 80 : goto refuse" in text
    assert text.count("ip daddr 10.96.0.0/20 goto refuse") == 2


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


# --- tables ---

TWO = (("10.88.0.2", 80), ("10.88.0.3", 80))


def rule(endpoints=TWO, **more):
    return ServiceRule(("10.96.0.2",), 80, "TCP", endpoints, **more)


def test_many_endpoints_are_picked_from_a_map():
    endpoints = tuple((f"10.88.0.{n}", 80) for n in range(2, 12))

    text = decide_ruleset(FACTS, services=[rule(endpoints)])

    assert "numgen random mod 10 map { 0 : 10.88.0.2 . 80, 1 : 10.88.0.3 . 80" in text


def test_a_client_with_affinity_is_remembered_by_endpoint():
    table = decide_table(FACTS, services=[rule(affinity_s=60)])

    assert set(table.learned) == {
        "seen-service-10.96.0.2-tcp-80-to-10.88.0.2-80",
        "seen-service-10.96.0.2-tcp-80-to-10.88.0.3-80",
    }
    first = "service-10.96.0.2-tcp-80-to-10.88.0.2-80"
    assert table.chains[first] == (
        f"update @seen-{first} {{ ip saddr timeout 60s }}",
        "meta l4proto tcp dnat ip to 10.88.0.2:80",
    )
    assert (
        table.chains["service-10.96.0.2-tcp-80"][0]
        == f"ip saddr @seen-{first} goto {first}"
    )


@pytest.mark.parametrize(
    ("given", "collection", "expected"),
    [
        pytest.param(
            rule(external_ips=("192.0.2.7",)),
            "cluster_ips",
            {
                "10.96.0.2 . tcp . 80": "goto service-10.96.0.2-tcp-80",
                "192.0.2.7 . tcp . 80": "goto service-10.96.0.2-tcp-80",
            },
            id="external-address",
        ),
        pytest.param(
            rule((), node_port=30000),
            "unserved_ports",
            {"tcp . 30000": "goto refuse"},
            id="node-port-without-endpoints",
        ),
        pytest.param(
            rule(node_port=30000, outside=(), drops_outside=True),
            "unserved_ports",
            {"tcp . 30000": "drop"},
            id="node-port-dropped-by-policy",
        ),
        pytest.param(
            rule((), outside=TWO, node_port=30000, drops_inside=True),
            "unserved_ips",
            {"10.96.0.2 . tcp . 80": "drop"},
            id="inside-dropped-by-policy",
        ),
        pytest.param(
            rule(outside=TWO[:1], node_port=30000),
            "host_ports",
            {"tcp . 30000": "goto outside-10.96.0.2-tcp-80"},
            id="outside-differs",
        ),
        pytest.param(
            rule((("192.0.2.1", 5),)),
            "elsewhere",
            {"192.0.2.1 . tcp . 5": ""},
            id="endpoint-elsewhere-is-masqueraded",
        ),
        pytest.param(rule(), "elsewhere", {}, id="own-pods-see-their-clients"),
    ],
)
def test_collections(given, collection, expected):
    table = decide_table(FACTS, services=[given])

    assert table.collections[collection].elements == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param([rule()], [rule()], "", id="nothing"),
        pytest.param(
            [rule()],
            [rule(TWO[:1])],
            "flush chain inet podyard-p service-10.96.0.2-tcp-80\n"
            "add rule inet podyard-p service-10.96.0.2-tcp-80 "
            "meta l4proto tcp dnat ip to 10.88.0.2:80\n"
            "delete element inet podyard-p hairpins { 10.88.0.3 . 10.88.0.3 }\n",
            id="endpoint-goes",
        ),
        pytest.param(
            [rule(TWO[:1])],
            [rule(())],
            "delete element inet podyard-p cluster_ips { 10.96.0.2 . tcp . 80 }\n"
            "add element inet podyard-p unserved_ips "
            "{ 10.96.0.2 . tcp . 80 : goto refuse }\n"
            "delete element inet podyard-p hairpins { 10.88.0.2 . 10.88.0.2 }\n"
            "flush chain inet podyard-p service-10.96.0.2-tcp-80\n"
            "delete chain inet podyard-p service-10.96.0.2-tcp-80\n",
            id="last-endpoint-goes",
        ),
        pytest.param(
            [],
            [rule(TWO[:1])],
            "add chain inet podyard-p service-10.96.0.2-tcp-80\n"
            "add rule inet podyard-p service-10.96.0.2-tcp-80 "
            "meta l4proto tcp dnat ip to 10.88.0.2:80\n"
            "add element inet podyard-p cluster_ips "
            "{ 10.96.0.2 . tcp . 80 : goto service-10.96.0.2-tcp-80 }\n"
            "add element inet podyard-p hairpins { 10.88.0.2 . 10.88.0.2 }\n",
            id="service-comes",
        ),
    ],
)
def test_only_what_differs_is_changed(old, new, expected):
    before = decide_table(FACTS, services=old)
    after = decide_table(FACTS, services=new)

    assert change_table(before, after) == expected


def test_memory_of_clients_survives_the_change_of_another_endpoint():
    before = decide_table(FACTS, services=[rule(affinity_s=60)])
    after = decide_table(FACTS, services=[rule(TWO[:1], affinity_s=60)])

    text = change_table(before, after)

    kept = "seen-service-10.96.0.2-tcp-80-to-10.88.0.2-80"
    gone = "seen-service-10.96.0.2-tcp-80-to-10.88.0.3-80"
    assert f"set inet podyard-p {kept}" not in text
    assert f"delete set inet podyard-p {gone}" in text


# --- flows ---

CLIENT = ("10.88.0.9", 40000)


@pytest.mark.parametrize(
    ("to", "answers", "is_stale"),
    [
        pytest.param(("10.96.0.2", 53), ("10.88.0.2", 53), False, id="endpoint-stays"),
        pytest.param(("10.96.0.2", 53), ("10.88.0.7", 53), True, id="endpoint-gone"),
        pytest.param(("10.96.0.2", 54), ("10.88.0.2", 54), True, id="port-gone"),
        pytest.param(("10.96.0.3", 53), ("10.88.0.2", 53), True, id="service-gone"),
        pytest.param(("10.88.0.1", 30053), ("10.88.0.7", 53), True, id="node-port"),
        pytest.param(
            ("10.88.0.1", 30053), ("10.88.0.1", 30053), True, id="older-than-the-port"
        ),
        pytest.param(("8.8.8.8", 30053), ("8.8.8.8", 30053), False, id="other-host"),
        pytest.param(("127.0.0.1", 5353), ("10.88.0.2", 53), False, id="host-port"),
        pytest.param(("8.8.8.8", 53), ("8.8.8.8", 53), False, id="not-ours"),
    ],
)
def test_flows_to_where_nobody_serves_are_stale(to, answers, is_stale):
    dns = ServiceRule(("10.96.0.2",), 53, "UDP", (("10.88.0.2", 53),), 30053)
    port = HostPort(5353, "UDP", ("10.88.0.2", 53), host_ip="127.0.0.1")
    flow = Flow(CLIENT, to, answers)

    found = stale_flows(
        [flow],
        udp_targets([dns, rule()], [port]),
        service_cidrs=("10.96.0.0/20",),
        host_ips=frozenset({"10.88.0.1", "127.0.0.1"}),
    )

    assert (list(found) == [flow]) is is_stale


BOTH = NetworkFacts(
    "podyard-p",
    "pyd-p",
    "10.88.0.0/24",
    "10.96.0.0/20",
    bridged_packets_are_filtered=False,
    pod_cidr_6="fd88::/64",
    service_cidr_6="fd77::/112",
)


def test_rules_of_ipv6_stand_beside_those_of_ipv4():
    four = ServiceRule(("10.96.0.5",), 80, "TCP", (("10.88.0.2", 80),), 30080)
    six = ServiceRule(("fd77::5",), 80, "TCP", (("fd88::2", 80),), 30080)
    sticky = ServiceRule(("fd77::6",), 53, "UDP", (("fd88::3", 53),), affinity_s=9)
    ports = [
        HostPort(8080, "TCP", ("10.88.0.2", 80)),
        HostPort(8080, "TCP", ("fd88::2", 80)),
    ]

    table = decide_table(BOTH, services=[four, six, sticky], ports=ports)

    maps, chains = table.collections, table.chains
    assert maps["cluster_ips"].elements == {
        "10.96.0.5 . tcp . 80": "goto service-10.96.0.5-tcp-80"
    }
    assert maps["cluster_ips_6"].elements == {
        "fd77::5 . tcp . 80": "goto service-fd77--5-tcp-80",
        "fd77::6 . udp . 53": "goto service-fd77--6-udp-53",
    }
    assert maps["host_ports_6"].elements == {
        "tcp . 30080": "goto service-fd77--5-tcp-80",
        "tcp . 8080": "goto host-any_6-tcp-8080",
    }
    assert chains["service-fd77--5-tcp-80"] == (
        "meta l4proto tcp dnat ip6 to [fd88::2]:80",
    )
    assert chains["host-any-tcp-8080"] == ("meta l4proto tcp dnat ip to 10.88.0.2:80",)
    assert table.learned["seen-service-fd77--6-udp-53-to-fd88--3-53"].startswith(
        "type ipv6_addr"
    )
    assert "ip6 daddr fd77::/112 goto refuse" in chains["filter_forward"]


def test_nothing_of_ipv6_is_said_where_pods_have_none():
    six = ServiceRule(("fd77::5",), 80, "TCP", (("fd88::2", 80),))

    text = decide_ruleset(FACTS, services=[six])

    assert "ip6" not in text
    assert "ipv6" not in text
    assert "fd77" not in text


def test_a_host_port_leads_each_family_to_the_address_of_its_own():
    document = pod()
    document["status"]["podIPs"] = [{"ip": "10.88.0.9"}, {"ip": "fd88::9"}]
    named = pod("b", ports=[{"containerPort": 80, "hostPort": 1, "hostIP": "fd00::1"}])
    named["status"]["podIPs"] = [{"ip": "10.88.0.8"}, {"ip": "fd88::8"}]

    nowhere = pod("c", ports=[{"containerPort": 1, "hostPort": 2, "hostIP": "::1"}])
    nowhere["status"]["podIPs"] = [{"ip": "fd88::7"}]

    found = host_ports([document, named, nowhere])

    assert found == (
        HostPort(8080, "TCP", ("10.88.0.9", 80)),
        HostPort(8080, "TCP", ("fd88::9", 80)),
        HostPort(1, "TCP", ("fd88::8", 80), host_ip="fd00::1"),
    )


def test_stale_flows_of_ipv6_are_found():
    rule_6 = ServiceRule(("fd77::5",), 53, "UDP", (("fd88::2", 53),), 30053)
    gone = Flow(("fd88::9", 4), ("fd77::5", 53), ("fd88::7", 53))
    port = Flow(("fd00::9", 4), ("fd00::1", 30053), ("fd88::7", 53))
    stays = Flow(("fd88::9", 5), ("fd77::5", 53), ("fd88::2", 53))

    found = stale_flows(
        [gone, port, stays],
        udp_targets([rule_6], []),
        service_cidrs=("10.96.0.0/20", "fd77::/112"),
        host_ips=frozenset({"fd00::1"}),
    )

    assert list(found) == [gone, port]


def test_sctp_is_led_as_tcp_and_udp_are():
    sctp = ServiceRule(
        ("10.96.0.5",),
        36412,
        "SCTP",
        (("10.88.0.2", 36412), ("10.88.0.3", 36412)),
        30412,
    )
    nobody = ServiceRule(("10.96.0.6",), 1, "SCTP", ())

    table = decide_table(
        FACTS,
        services=[sctp, nobody],
        ports=[HostPort(3868, "SCTP", ("10.88.0.4", 3868))],
    )

    maps = table.collections
    chain = "service-10.96.0.5-sctp-36412"
    assert maps["cluster_ips"].elements == {"10.96.0.5 . sctp . 36412": f"goto {chain}"}
    assert maps["unserved_ips"].elements == {"10.96.0.6 . sctp . 1": "goto refuse"}
    assert maps["host_ports"].elements == {
        "sctp . 30412": f"goto {chain}",
        "sctp . 3868": "goto host-any-sctp-3868",
    }
    assert table.chains[chain] == (
        "meta l4proto sctp numgen random mod 2 0 dnat ip to 10.88.0.2:36412",
        "meta l4proto sctp dnat ip to 10.88.0.3:36412",
    )
