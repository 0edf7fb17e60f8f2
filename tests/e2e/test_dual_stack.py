"""Pods and Services with addresses of both families, on an instance of their own."""

import http.client
import socket
from collections.abc import Iterator

import pytest

from podyard.api.documents import Document
from podyard.network.bridge import has_ipv6
from support.api import Api, is_ready, until
from support.instance import RunningPodyard, running_podyard
from support.kubectl import find_kubectls
from support.manifests import container, pod

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="the kernel has no IPv6")

SERVER = """
mkdir /www && hostname > /www/index.html && httpd -p 8080 -h /www
while :; do nc -l -p 9000 -e cat; done &
trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done
"""
ENV = [
    {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"status.{path}"}}}
    for name, path in (("PODS", "podIPs"), ("HOSTS", "hostIPs"), ("FIRST", "podIP"))
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPodyard]:
    data = tmp_path_factory.mktemp("both") / "d"
    name = f"both-{data.parent.name[-6:].strip('_').replace('_', '-')}"
    with running_podyard(name, data, "--ip-families", "IPv4,IPv6") as running:
        yield running


@pytest.fixture(scope="module")
def world(both: RunningPodyard) -> Iterator[Api]:
    api = Api(both.kubeconfig)
    ports = [{"name": "http", "containerPort": 8080, "hostPort": 18086}]
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    main = container(SERVER, ports=ports, readinessProbe=probe, env=ENV)
    api.create(
        pod("web", main, labels={"app": "web"}, hostname="web", subdomain="heads"),
        pod("client", container("sleep 3600", env=ENV)),
        service("two", ipFamilyPolicy="RequireDualStack", type="NodePort"),
        service("six", ipFamilies=["IPv6"], sessionAffinity="ClientIP"),
        service("nobody", ipFamilies=["IPv6"], selector={"app": "nobody"}),
        service("heads", ipFamilyPolicy="PreferDualStack", clusterIP="None"),
    )
    for name in ("web", "client"):
        api.until_pod(name, is_ready)
    yield api
    api.close()


def service(name: str, **spec) -> Document:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    ports.append({"name": "echo", "port": 9000})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


@pytest.fixture(scope="module")
def sh(both: RunningPodyard, world: Api):
    kubectl = find_kubectls()[-1]

    def run(script: str, name: str = "client") -> str:
        return kubectl.text(both.kubeconfig, "exec", name, "--", "sh", "-c", script)

    return run


def get(host: str, port: int = 80) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def spec(world: Api, name: str) -> Document:
    found = world.must("GET", f"/api/v1/namespaces/default/services/{name}")
    return found["spec"]


def test_pods_and_node_have_an_address_of_each_family(both, world, sh):
    status = world.pod("client")["status"]
    ips = [entry["ip"] for entry in status["podIPs"]]
    hosts = [entry["ip"] for entry in status["hostIPs"]]
    node = world.must("GET", "/api/v1/nodes")["items"][0]

    assert [":" in ip for ip in ips] == [False, True]
    assert status["podIP"] == ips[0]
    assert hosts == list(both.row.node_ips)
    assert node["spec"]["podCIDRs"] == list(both.row.pod_cidrs)
    internal = [a for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    assert [a["address"] for a in internal] == hosts
    seen = sh("echo $PODS $HOSTS $FIRST").split()
    assert seen == [",".join(ips), ",".join(hosts), ips[0]]
    names = [line.split() for line in sh("cat /etc/hosts").splitlines()]
    assert [[ip, "client"] for ip in ips] == names[-2:]


def test_services_are_reached_over_each_family(world, sh):
    addresses = [*spec(world, "two")["clusterIPs"], *spec(world, "six")["clusterIPs"]]

    assert [":" in ip for ip in addresses] == [False, True, True]
    for ip in addresses:
        url = f"http://[{ip}]" if ":" in ip else f"http://{ip}"
        until(lambda ip=ip: get(ip) == "web")
        assert sh(f"timeout 5 wget -qO- {url}").strip() == "web"
        # A Pod that reaches itself takes the same way.
        assert sh(f"timeout 5 wget -qO- {url}", "web").strip() == "web"


def test_ports_of_the_host_are_reached_over_each_family(both, world, sh):
    node_port = spec(world, "two")["ports"][0]["nodePort"]

    for port in (node_port, 18086):
        for ip in both.row.node_ips:
            until(lambda ip=ip, port=port: get(ip, port) == "web")
        url = f"http://[{both.row.node_ips[1]}]:{port}"
        assert sh(f"timeout 5 wget -qO- {url}").strip() == "web"
    # ::1 cannot leave the host: whoever listens there himself is asked.
    assert get("::1", node_port) == "ConnectionRefusedError"


def test_nobody_behind_an_ipv6_address_is_told_at_once(world, sh):
    ip = spec(world, "nobody")["clusterIP"]

    until(lambda: get(ip) == "ConnectionRefusedError")
    assert "refused" in sh(f"timeout 3 wget -qO- http://[{ip}] 2>&1 || true")


def test_names_lead_to_each_family_and_back(world, sh):
    ips = [entry["ip"] for entry in world.pod("web")["status"]["podIPs"]]
    six = spec(world, "six")["clusterIP"]
    dashed = ips[1].replace(":", "-")

    def asked(what: str) -> str:
        return sh(f"nslookup {what}")

    domain = "default.svc.cluster.local"
    assert six in until(lambda: asked(f"six.{domain}"))
    assert all(ip in asked(f"heads.{domain}") for ip in ips)
    assert ips[1] in asked(f"-type=AAAA web.heads.{domain}")
    assert ips[1] in asked(f"-type=AAAA {dashed}.default.pod.cluster.local")
    assert f"web.heads.{domain}" in asked(ips[1])
    assert f"six.{domain}" in asked(six)


def test_slices_and_variables_follow_the_families_of_a_service(world, sh):
    slices = world.must(
        "GET",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        "?labelSelector=kubernetes.io/service-name%3Dheads",
    )["items"]

    assert {item["addressType"] for item in slices} == {"IPv4", "IPv6"}
    world.create(pod("late", container("sleep 3600")))
    world.until_pod("late", is_ready)
    two, six = spec(world, "two"), spec(world, "six")
    assert sh("echo $TWO_SERVICE_HOST", "late").strip() == two["clusterIPs"][0]
    assert sh("echo $SIX_PORT", "late").strip() == f"tcp://[{six['clusterIP']}]:80"


def test_a_connection_outlives_the_second_address(world):
    path = "/api/v1/namespaces/default/services/six"
    ip = spec(world, "six")["clusterIP"]
    with socket.create_connection((ip, 9000), timeout=5) as kept:
        kept.send(b"before\n")
        assert kept.recv(100) == b"before\n"

        two = world.patch(path, {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
        until(lambda: get(two["spec"]["clusterIPs"][1]) == "web")
        one = world.patch(path, {"spec": {"ipFamilyPolicy": "SingleStack"}})

        kept.send(b"after\n")
        assert kept.recv(100) == b"after\n"
    assert two["spec"]["ipFamilies"] == ["IPv6", "IPv4"]
    assert one["spec"]["clusterIPs"] == [ip]
    until(lambda: get(two["spec"]["clusterIPs"][1]) == "ConnectionRefusedError")
