"""ClusterIPs and node ports."""

import random
from ipaddress import ip_address, ip_network

import pytest

from podyard.api.errors import ApiError
from podyard.server.allocation import ServiceAddresses


def service(**spec):
    return {"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", **spec}}


def addresses(*cidrs, ports=(30000, 30009)) -> ServiceAddresses:
    return ServiceAddresses(cidrs or ("10.96.0.0/24",), ports, random.Random(1))


def test_every_address_is_given_once_and_then_none_is_left():
    pool = addresses("10.96.0.0/28")
    given = set()
    for _ in range(14):
        new = service()
        pool.allocate(new)
        given.add(new["spec"]["clusterIP"])

    with pytest.raises(ApiError) as full:
        pool.allocate(service())

    assert given == {f"10.96.0.{i}" for i in range(1, 15)}
    assert full.value.message.endswith("failed to allocate a serviceIP: range is full")


def test_chosen_addresses_leave_the_low_ones_to_who_asks_for_them():
    pool = addresses()
    for _ in range(100):
        pool.allocate(service())
    wanted = service(clusterIP="10.96.0.1")

    pool.allocate(wanted)

    assert wanted["spec"]["clusterIPs"] == ["10.96.0.1"]


def test_what_is_stored_is_taken_after_a_restart():
    pool = addresses()
    stored = service(clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    pool.load([stored])

    with pytest.raises(ApiError) as taken:
        pool.allocate(service(clusterIP="10.96.0.7"))
    pool.release(stored)
    pool.allocate(service(clusterIP="10.96.0.7"))

    assert taken.value.code == 422


def test_a_refused_service_takes_nothing():
    pool = addresses()
    bad = service(type="NodePort", ports=[{"port": 1}, {"port": 2, "nodePort": 99}])

    with pytest.raises(ApiError):
        pool.allocate(bad)

    assert pool.in_use == (0, 0)


def test_a_write_that_fails_gives_back_what_it_took():
    pool = addresses()

    pool.rollback(pool.allocate(service(type="NodePort", ports=[{"port": 1}])))

    assert pool.in_use == (0, 0)


def test_one_number_may_serve_two_protocols_of_one_service():
    pool = addresses()
    ports = [
        {"port": 53, "protocol": "UDP", "nodePort": 30001},
        {"port": 53, "protocol": "TCP", "nodePort": 30001},
    ]

    pool.allocate(service(type="NodePort", ports=ports))

    assert pool.in_use == (1, 1)


def test_an_update_keeps_what_it_leaves_out():
    pool = addresses()
    old = service(type="NodePort", ports=[{"port": 80}])
    pool.commit(pool.allocate(old))
    new = service(type="NodePort", ports=[{"port": 80}, {"port": 81}])

    pool.commit(pool.allocate(new, old))

    assert new["spec"]["clusterIP"] == old["spec"]["clusterIP"]
    assert new["spec"]["ports"][0] == old["spec"]["ports"][0]
    assert pool.in_use == (1, 2)


@pytest.mark.parametrize(
    ("before", "after", "in_use"),
    [
        ("NodePort", "ClusterIP", (1, 0)),
        ("ClusterIP", "NodePort", (1, 1)),
        ("NodePort", "ExternalName", (0, 0)),
        ("ExternalName", "ClusterIP", (1, 0)),
    ],
)
def test_a_change_of_type_takes_and_frees(before, after, in_use):
    pool = addresses()
    old = service(type=before, ports=[{"port": 80}])
    pool.commit(pool.allocate(old))
    spec = {**old["spec"], "type": after, "ports": [dict(old["spec"]["ports"][0])]}

    pool.commit(pool.allocate({"metadata": {"name": "s"}, "spec": spec}, old))

    assert pool.in_use == in_use


def test_a_headless_service_has_no_address():
    pool, new = addresses(), service(clusterIP="None")

    pool.allocate(new)

    assert new["spec"]["clusterIPs"] == ["None"]
    assert pool.in_use == (0, 0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"clusterIP": "1.2.3.4"}, "is not in the valid range"),
        ({"clusterIP": "10.96.0.0"}, "is not in the valid range"),
        ({"clusterIP": "10.96.0.255"}, "is not in the valid range"),
        ({"clusterIP": "x"}, "is not an IP address"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "not configured for dual-stack"),
        ({"ipFamilies": ["IPv6"]}, "not configured on this cluster"),
    ],
)
def test_what_cannot_be_had_is_told(spec, said):
    with pytest.raises(ApiError) as refused:
        addresses().allocate(service(**spec))

    assert said in refused.value.message


V4, V6 = "10.96.0.0/24", "fd77:0:0:1::/112"


@pytest.mark.parametrize(
    ("spec", "policy", "families", "networks"),
    [
        pytest.param({}, "SingleStack", ["IPv4"], [V4], id="the-first-by-default"),
        pytest.param(
            {"ipFamilies": ["IPv6"]}, "SingleStack", ["IPv6"], [V6], id="one-asked-for"
        ),
        pytest.param(
            {"ipFamilyPolicy": "PreferDualStack"},
            "PreferDualStack",
            ["IPv4", "IPv6"],
            [V4, V6],
            id="both-preferred",
        ),
        pytest.param(
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            "RequireDualStack",
            ["IPv6", "IPv4"],
            [V6, V4],
            id="both-required-in-the-order-asked-for",
        ),
        pytest.param(
            {"clusterIP": "fd77:0:0:1::7", "clusterIPs": ["fd77:0:0:1::7"]},
            "SingleStack",
            ["IPv6"],
            [V6],
            id="inferred-from-the-address",
        ),
        pytest.param(
            {"clusterIP": "None", "selector": {"a": "b"}},
            "SingleStack",
            ["IPv4"],
            [],
            id="headless",
        ),
        pytest.param(
            {"clusterIP": "None"},
            "RequireDualStack",
            ["IPv4", "IPv6"],
            [],
            id="headless-without-selector",
        ),
    ],
)
def test_families_are_asked_for_inferred_or_the_first(spec, policy, families, networks):
    new = service(**spec)

    addresses(V4, V6).allocate(new)

    given = [ip for ip in new["spec"]["clusterIPs"] if ip != "None"]
    assert new["spec"]["ipFamilyPolicy"] == policy
    assert new["spec"]["ipFamilies"] == families
    assert new["spec"]["clusterIP"] == new["spec"]["clusterIPs"][0]
    assert len(given) == len(networks)
    for ip, network in zip(given, networks, strict=True):
        assert ip_address(ip) in ip_network(network)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"},
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families",
        ),
        (
            {"clusterIPs": ["10.96.0.7", "fd77:0:0:1::7"], "clusterIP": "10.96.0.7"},
            "when multiple cluster IPs are specified",
        ),
        (
            {"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.96.0.7", "fd::7"]},
            "The range of valid IPs is fd77:0:0:1::/112",
        ),
    ],
)
def test_two_addresses_that_cannot_be_had_are_told(spec, said):
    pool = addresses(V4, V6)

    with pytest.raises(ApiError) as no:
        pool.allocate(service(**spec))

    assert said in no.value.message
    assert pool.in_use == (0, 0)


def test_a_second_address_comes_and_goes_with_the_policy():
    pool = addresses(V4, V6)
    one = service(ports=[{"port": 80}])
    pool.commit(pool.allocate(one))
    two = service(ports=[{"port": 80}], ipFamilyPolicy="RequireDualStack")
    pool.commit(pool.allocate(two, one))
    both = pool.in_use
    again = service(**{**two["spec"], "ipFamilyPolicy": "SingleStack"})

    pool.commit(pool.allocate(again, two))

    assert two["spec"]["clusterIPs"][0] == one["spec"]["clusterIP"]
    assert two["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert both == (2, 0)
    assert again["spec"]["clusterIPs"] == one["spec"]["clusterIPs"]
    assert again["spec"]["ipFamilies"] == ["IPv4"]
    assert pool.in_use == (1, 0)


def test_preferring_both_changes_nothing_when_the_cluster_does():
    single = addresses(V4)
    old = service(ipFamilyPolicy="PreferDualStack")
    single.commit(single.allocate(old))
    pool = addresses(V4, V6)
    pool.load([old])
    new = service(**{**old["spec"], "ports": [{"port": 1}]})

    pool.commit(pool.allocate(new, old))

    assert new["spec"]["clusterIPs"] == old["spec"]["clusterIPs"]
