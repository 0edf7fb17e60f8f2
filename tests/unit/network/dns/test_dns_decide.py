"""Names of Services and Pods, as the DNS specification tables them."""

import pytest

from podyard.network.dns.decide import Answer, DnsSettings, decide_answer
from podyard.network.dns.names import ClusterNames

SETTINGS = DnsSettings(
    "cluster.local", "10.96.0.10", ("10.88.0.0/24", "10.96.0.0/20", "fd88::/64")
)


def service(name, *, ip="10.96.0.5", namespace="default", ports=None, **spec):
    ports = [{"name": "http", "port": 80}] if ports is None else ports
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports, **spec},
    }


def endpoint_slice(service_name, *endpoints, port=8080, name="http", suffix="x"):
    return {
        "metadata": {
            "name": f"{service_name}-{suffix}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(ip, hostname="", *, ready=True):
    found = {"addresses": [ip], "conditions": {"ready": ready}}
    return found | {"hostname": hostname} if hostname else found


def pod(name, ip, *, namespace="default", phase="Running", **spec):
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": spec,
        "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
    }


@pytest.fixture
def names():
    known = ClusterNames(1)
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    known.on_service(None, service("web", ports=ports))
    known.on_service(None, service("db", ip="None"))
    known.on_service(None, service("idle", ip="None"))
    known.on_service(None, service("six", ip="fd00::5"))
    known.on_service(
        None, service("out", type="ExternalName", externalName="Example.com", ip="")
    )
    known.on_service(
        None,
        service(
            "alias",
            type="ExternalName",
            externalName="web.default.svc.cluster.local",
            ip="",
        ),
    )
    known.on_service(
        None,
        service(
            "loop",
            type="ExternalName",
            externalName="loop.default.svc.cluster.local",
            ip="",
        ),
    )
    known.on_service(
        None, service("number", type="ExternalName", externalName="192.0.2.1", ip="")
    )
    known.on_slice(
        None,
        endpoint_slice(
            "db",
            endpoint("10.88.0.2", "db-0"),
            endpoint("10.88.0.3"),
            endpoint("10.88.0.4", "db-2", ready=False),
        ),
    )
    known.on_slice(None, endpoint_slice("web", endpoint("10.88.0.7", "w")))
    known.on_pod(None, pod("a", "10.88.0.9"))
    known.on_pod(None, pod("host", "10.88.0.1", hostNetwork=True))
    known.on_pod(None, pod("done", "10.88.0.8", phase="Succeeded"))
    return known


def ask(names, name, type_):
    return decide_answer(name, type_, names, SETTINGS)


DEFAULT = "default.svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        pytest.param(f"web.{DEFAULT}", "A", ["10.96.0.5"], id="cluster-ip"),
        pytest.param(f"web.{DEFAULT}", "AAAA", [], id="no-other-family"),
        pytest.param(f"six.{DEFAULT}", "AAAA", ["fd00::5"], id="ipv6"),
        pytest.param(f"web.{DEFAULT}", "ANY", ["10.96.0.5"], id="any"),
        pytest.param(f"web.{DEFAULT}", "MX", [], id="other-type"),
        pytest.param(f"w.web.{DEFAULT}", "A", ["10.88.0.7"], id="endpoint-by-name"),
        pytest.param(
            f"db.{DEFAULT}", "A", ["10.88.0.2", "10.88.0.3"], id="headless-ready-ones"
        ),
        pytest.param(f"idle.{DEFAULT}", "A", [], id="headless-without-endpoints"),
        pytest.param(f"db-0.db.{DEFAULT}", "A", ["10.88.0.2"], id="hostname"),
        pytest.param(f"10-88-0-3.db.{DEFAULT}", "A", ["10.88.0.3"], id="dashed"),
        pytest.param(f"10-88-0-2.db.{DEFAULT}", "A", None, id="dashed-has-a-hostname"),
        pytest.param(f"db-2.db.{DEFAULT}", "A", None, id="not-ready-has-no-name"),
        pytest.param(f"none.{DEFAULT}", "A", None, id="no-such-service"),
        pytest.param("web.other.svc.cluster.local", "A", None, id="other-namespace"),
        pytest.param(f"a.b.web.{DEFAULT}", "A", None, id="too-deep"),
        pytest.param(DEFAULT, "A", [], id="namespace"),
        pytest.param("other.svc.cluster.local", "A", None, id="no-such-namespace"),
        pytest.param("svc.cluster.local", "A", [], id="svc"),
        pytest.param("cluster.local", "A", [], id="apex"),
        pytest.param("cluster.local", "NS", ["ns.dns.cluster.local."], id="apex-ns"),
        pytest.param("ns.dns.cluster.local", "A", ["10.96.0.10"], id="server"),
        pytest.param("dns-version.cluster.local", "TXT", ['"1.1.0"'], id="version"),
        pytest.param("example.com.cluster.local", "A", None, id="search-path-miss"),
        pytest.param(
            f"_http._tcp.web.{DEFAULT}",
            "SRV",
            [f"0 100 80 web.{DEFAULT}."],
            id="srv-of-a-service",
        ),
        pytest.param(
            f"web.{DEFAULT}",
            "SRV",
            [f"0 50 80 web.{DEFAULT}.", f"0 50 53 web.{DEFAULT}."],
            id="srv-of-every-port",
        ),
        pytest.param(
            f"_http._tcp.db.{DEFAULT}",
            "SRV",
            [f"0 50 8080 db-0.db.{DEFAULT}.", f"0 50 8080 10-88-0-3.db.{DEFAULT}."],
            id="srv-of-a-headless-service",
        ),
        pytest.param(f"_http._udp.web.{DEFAULT}", "SRV", None, id="srv-wrong-protocol"),
        pytest.param(f"_x._tcp.web.{DEFAULT}", "SRV", None, id="srv-unknown-port"),
        pytest.param(f"_http._tcp.web.{DEFAULT}", "A", [], id="a-of-a-port"),
        pytest.param(f"_tcp.web.{DEFAULT}", "SRV", [], id="protocol-alone"),
        pytest.param(f"_sctp.web.{DEFAULT}", "SRV", None, id="unused-protocol"),
        pytest.param(f"out.{DEFAULT}", "A", ["example.com."], id="external-name"),
        pytest.param(f"out.{DEFAULT}", "CNAME", ["example.com."], id="external-cname"),
        pytest.param(f"x.out.{DEFAULT}", "A", None, id="below-an-external-name"),
        pytest.param(f"number.{DEFAULT}", "A", [], id="external-name-is-no-address"),
        pytest.param(
            f"alias.{DEFAULT}",
            "A",
            [f"web.{DEFAULT}.", "10.96.0.5"],
            id="external-name-of-our-own",
        ),
        pytest.param(
            "10-88-0-9.default.pod.cluster.local", "A", ["10.88.0.9"], id="pod"
        ),
        pytest.param(
            "10-88-0-9.other.pod.cluster.local", "A", None, id="pod-elsewhere"
        ),
        pytest.param("10-88-0-1.default.pod.cluster.local", "A", None, id="host-pod"),
        pytest.param("10-88-0-8.default.pod.cluster.local", "A", None, id="ended-pod"),
        pytest.param("default.pod.cluster.local", "A", [], id="pods-of-a-namespace"),
        pytest.param("empty.pod.cluster.local", "A", None, id="namespace-without-pods"),
        pytest.param("a.b.default.pod.cluster.local", "A", None, id="below-a-pod"),
        pytest.param(
            "5.0.96.10.in-addr.arpa", "PTR", [f"web.{DEFAULT}."], id="reverse-service"
        ),
        pytest.param("5.0.96.10.in-addr.arpa", "A", [], id="reverse-other-type"),
        pytest.param(
            "2.0.88.10.in-addr.arpa", "PTR", [f"db-0.db.{DEFAULT}."], id="reverse-peer"
        ),
        pytest.param(
            "7.0.88.10.in-addr.arpa", "PTR", None, id="no-reverse-behind-a-cluster-ip"
        ),
        pytest.param(
            "5." + "0." * 27 + "0.d.f.ip6.arpa".replace("0.d.f", "0.0.d.f"),
            "PTR",
            [f"six.{DEFAULT}."],
            id="reverse-ipv6",
        ),
    ],
)
def test_names_of_the_cluster(names, name, type_, expected):
    answer = ask(names, name, type_)

    assert answer is not None
    if expected is None:
        assert (answer.exists, answer.records) == (False, ())
    else:
        assert answer.exists
        assert [record.data for record in answer.records] == expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("example.com", id="name"),
        pytest.param("mycluster.local", id="alike"),
        pytest.param("1.2.0.192.in-addr.arpa", id="reverse"),
        pytest.param("2.0.192.in-addr.arpa", id="part-of-an-address"),
        pytest.param("x.in-addr.arpa", id="no-address"),
    ],
)
def test_others_are_asked_for_other_names(names, name):
    assert ask(names, name, "PTR") is None


def test_addresses_of_located_hosts_come_along(names):
    answer = ask(names, f"_http._tcp.db.{DEFAULT}", "SRV")

    assert [(record.name, record.data) for record in answer.additional] == [
        (f"db-0.db.{DEFAULT}", "10.88.0.2"),
        (f"10-88-0-3.db.{DEFAULT}", "10.88.0.3"),
    ]


def test_a_name_elsewhere_is_followed_by_asking_others(names):
    assert ask(names, f"out.{DEFAULT}", "A").follow == "example.com"
    assert ask(names, f"out.{DEFAULT}", "CNAME").follow == ""


def test_a_chain_of_names_ends(names):
    answer = ask(names, f"loop.{DEFAULT}", "A")

    assert 0 < len(answer.records) < 12
    assert {record.type for record in answer.records} == {"CNAME"}


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        pytest.param(f"none.{DEFAULT}", "cluster.local", id="forward"),
        pytest.param("9.9.88.10.in-addr.arpa", None, id="outside-of-the-pod-range"),
        pytest.param("99.0.88.10.in-addr.arpa", "0.88.10.in-addr.arpa", id="reverse"),
        pytest.param(
            "9." + "0." * 27 + "8.8.d.f.ip6.arpa",
            "0." * 12 + "8.8.d.f.ip6.arpa",
            id="reverse-ipv6",
        ),
    ],
)
def test_a_denial_names_its_zone(names, name, zone):
    answer = ask(names, name, "PTR")

    assert (answer.zone if answer else None) == zone


def test_changes_are_seen_at_once(names):
    serial = names.serial
    old = endpoint_slice("db", endpoint("10.88.0.2"))
    names.on_slice(old, endpoint_slice("db", endpoint("10.88.0.30")))
    assert [r.data for r in ask(names, f"db.{DEFAULT}", "A").records] == ["10.88.0.30"]
    assert not ask(names, "2.0.88.10.in-addr.arpa", "PTR").exists

    names.on_service(service("db"), service("db", ip="10.96.0.77"))
    assert [r.data for r in ask(names, f"db.{DEFAULT}", "A").records] == ["10.96.0.77"]
    assert not ask(names, "30.0.88.10.in-addr.arpa", "PTR").exists

    names.on_service(service("db"), None)
    assert not ask(names, f"db.{DEFAULT}", "A").exists
    names.on_slice(endpoint_slice("db"), None)
    names.on_service(None, service("db", ip="None"))
    assert ask(names, f"db.{DEFAULT}", "A") == Answer(zone="cluster.local")
    assert names.serial > serial


def test_a_pod_that_goes_takes_its_name_along(names):
    names.on_pod(pod("a", "10.88.0.9"), None)

    assert not ask(names, "10-88-0-9.default.pod.cluster.local", "A").exists
    assert not ask(names, "default.pod.cluster.local", "A").exists


def test_what_changes_no_name_leaves_the_serial(names):
    serial = names.serial
    labelled = service("idle", ip="None")
    labelled["metadata"]["labels"] = {"a": "b"}

    names.on_service(service("idle", ip="None"), labelled)
    names.on_pod(pod("a", "10.88.0.9"), pod("a", "10.88.0.9", priority=1))

    assert names.serial == serial
