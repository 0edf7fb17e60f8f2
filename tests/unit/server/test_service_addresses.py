"""ClusterIPs and node ports."""

import random

import pytest

from podyard.api.errors import ApiError
from podyard.server.allocation import ServiceAddresses


def service(**spec):
    return {"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", **spec}}


def addresses(cidr="10.96.0.0/24", ports=(30000, 30009)) -> ServiceAddresses:
    return ServiceAddresses(cidr, ports, random.Random(1))


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
