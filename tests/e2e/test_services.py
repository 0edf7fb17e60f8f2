"""Services as packets and as names, with real Pods."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dns.message
import pytest

from podyard.api.documents import Document
from support.api import Api, is_ready, path_of, until
from support.instance import running_podyard
from support.kubectl import find_kubectls
from support.manifests import container, pod

SPACE = "services"
#: Serves its name as a page on 8080, and repeats what it hears on 9000.
SERVER = """
mkdir /www && hostname > /www/index.html && httpd -p 8080 -h /www
while :; do nc -l -p 9000 -e cat; done &
trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done
"""
#: Tells its name over UDP; run by the Python of the host.
UDP_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 5353))
while True:
    _, client = server.recvfrom(100)
    server.sendto(socket.gethostname().encode(), client)
"""
PORTS = [
    {"name": "http", "containerPort": 8080},
    {"name": "udp", "containerPort": 5353, "protocol": "UDP"},
    {"name": "echo", "containerPort": 9000},
]


def server(name: str, *, app: str = "web", ready: str = "", **spec) -> Document:
    probe = (
        {"exec": {"command": ["sh", "-c", ready]}}
        if ready
        else {"tcpSocket": {"port": 8080}}
    )
    main = container(SERVER, ports=PORTS, readinessProbe={**probe, "periodSeconds": 1})
    return pod(
        name,
        main,
        namespace=SPACE,
        labels={"app": app, "name": name},
        terminationGracePeriodSeconds=1,
        **spec,
    )


def udp_server(name: str) -> Document:
    python = os.path.realpath(sys.executable)
    main = {
        **container(ports=PORTS, volumeMounts=[{"name": "host", "mountPath": "/host"}]),
        "command": ["chroot", "/host", python, "-I", "-S", "-c", UDP_SERVER],
    }
    return pod(
        name,
        main,
        namespace=SPACE,
        labels={"app": "udp"},
        terminationGracePeriodSeconds=1,
        volumes=[{"name": "host", "hostPath": {"path": "/"}}],
    )


def service(name: str, **spec) -> Document:
    spec.setdefault("selector", {"app": "web"})
    spec.setdefault(
        "ports",
        [
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "udp", "port": 53, "targetPort": "udp", "protocol": "UDP"},
            {"name": "echo", "port": 9000},
        ],
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def space(api: Api) -> Iterator[None]:
    """Two servers and a client."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    api.create(
        server("web-0", hostname="web-0", subdomain="heads"),
        server("web-1", hostname="web-1", subdomain="heads"),
        pod("client", namespace=SPACE),
    )
    for name in ("web-0", "web-1", "client"):
        api.until_pod(name, is_ready, namespace=SPACE)
    yield
    api.delete(f"/api/v1/namespaces/{SPACE}")


@pytest.fixture
def serve(api: Api, space: None):
    """Creates a Service, waits for its endpoints, and removes it at the end."""
    made: list[str] = []

    def make(name: str, *, ready: int | None = 2, **spec) -> Document:
        document = api.create(service(name, **spec))
        made.append(name)
        if ready is not None:
            until(lambda: len(ready_ips(api, name)) == ready)
        return document

    yield make
    for name in made:
        api.delete(path_of(service(name), SPACE, name))


def ready_ips(api: Api, name: str) -> set[str]:
    listed = api.must(
        "GET",
        f"/apis/discovery.k8s.io/v1/namespaces/{SPACE}/endpointslices"
        f"?labelSelector=kubernetes.io/service-name%3D{name}",
    )
    return {
        endpoint["addresses"][0]
        for item in listed["items"]
        for endpoint in item["endpoints"] or ()
        if endpoint["conditions"]["ready"]
    }


@pytest.fixture(scope="module")
def sh(instance, space):
    kubectl = find_kubectls()[-1]

    def run(script: str, name: str = "client") -> str:
        return kubectl.text(
            instance.kubeconfig, "exec", "-n", SPACE, name, "--", "sh", "-c", script
        )

    return run


def get(host: str, port: int) -> str:
    """GET a Pod's name from the host."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def answers(host: str, port: int, name: str) -> bool:
    try:
        return get(host, port) == name
    except OSError:
        return False


def is_refused(host: str, port: int) -> bool:
    """Say whether nobody serves there; rules follow the API in a moment."""
    try:
        get(host, port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def ask_udp(client: socket.socket) -> str:
    """Ask for a server's name, again while one is just starting."""
    client.settimeout(0.5)

    def ask() -> str:
        try:
            client.send(b"who\n")
            return client.recv(100).decode().strip()
        except OSError:
            return ""

    return until(ask, within_s=20)


def ask_anew(made: Document) -> str:
    """Ask over a flow of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ip_of(made), 53))
        return ask_udp(client)


def converse(kept: socket.socket, done: threading.Event) -> int:
    """Say something and hear it again and again; return how often that went well."""
    heard = 0
    while not done.is_set():
        line = b"%d\n" % heard
        kept.sendall(line)
        assert kept.recv(100) == line
        heard += 1
    return heard


def ip_of(document: Document) -> str:
    return document["spec"]["clusterIP"]


def test_a_cluster_ip_spreads_clients_from_pods_and_host(serve, sh):
    made = serve("spread")
    until(lambda: not is_refused(ip_of(made), 80))

    from_host = {get(ip_of(made), 80) for _ in range(20)}
    lines = sh("for i in $(seq 20); do wget -qO- http://spread; done").split()

    assert from_host == {"web-0", "web-1"}
    assert set(lines) == {"web-0", "web-1"}


def test_a_node_port_answers_on_every_address_of_the_host(api, serve, sh):
    made = serve(
        "node-port", type="NodePort", ports=[{"port": 80, "targetPort": "http"}]
    )
    port = made["spec"]["ports"][0]["nodePort"]
    node_ip = api.pod("client", SPACE)["status"]["hostIP"]
    until(lambda: not is_refused("127.0.0.1", port))

    assert get("127.0.0.1", port) in {"web-0", "web-1"}
    assert get(node_ip, port) in {"web-0", "web-1"}
    assert sh(f"wget -qO- http://{node_ip}:{port}").strip() in {"web-0", "web-1"}


def test_an_external_address_leads_to_the_service_from_host_and_pods(serve, sh):
    serve("external", externalIPs=["192.0.2.77"])

    # The first try may come before the rules, and leave the host.
    found = until(lambda: sh("timeout 1 wget -qO- http://192.0.2.77 || true").strip())
    assert found in {"web-0", "web-1"}


def test_a_client_stays_with_its_server_when_asked_to(serve, sh):
    made = serve(
        "sticky",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
    )
    until(lambda: not is_refused(ip_of(made), 80))

    from_host = {get(ip_of(made), 80) for _ in range(15)}
    from_pod = set(sh("for i in $(seq 15); do wget -qO- http://sticky; done").split())

    assert len(from_host) == 1
    assert len(from_pod) == 1


def test_a_pod_reaches_itself_through_its_service(serve, sh):
    made = serve("self", ready=1, selector={"name": "web-0"})
    until(lambda: not is_refused(ip_of(made), 80))

    assert sh("timeout 3 wget -qO- http://self", "web-0").strip() == "web-0"


def test_udp_follows_its_endpoints_even_on_a_flow_that_goes_on(api, serve):
    api.create(udp_server("udp-a"))
    api.until_pod("udp-a", is_ready, namespace=SPACE)
    made = serve("datagrams", ready=1, selector={"app": "udp"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ip_of(made), 53))
        assert ask_udp(client) == "udp-a"

        api.create(udp_server("udp-b"))
        api.until_pod("udp-b", is_ready, namespace=SPACE)
        until(lambda: "udp-b" in {ask_anew(made) for _ in range(4)})
        # Another endpoint takes nothing away from a flow that leads somewhere.
        assert {ask_udp(client) for _ in range(10)} == {"udp-a"}

        api.delete(f"/api/v1/namespaces/{SPACE}/pods/udp-a", gracePeriodSeconds=0)
        until(lambda: len(ready_ips(api, "datagrams")) == 1)

        # The rules follow in a moment; without them nobody would answer this flow.
        until(lambda: ask_udp(client) == "udp-b")
    api.delete(f"/api/v1/namespaces/{SPACE}/pods/udp-b", gracePeriodSeconds=0)


def test_a_connection_in_use_outlives_changes_of_its_service(api, serve):
    made = serve("rolling", ready=1, selector={"name": "web-0"})
    path, ip = path_of(made, SPACE, "rolling"), ip_of(made)
    until(lambda: not is_refused(ip, 80))
    done = threading.Event()
    with (
        ThreadPoolExecutor(1) as pool,
        socket.create_connection((ip, 9000), timeout=20) as kept,
    ):
        heard = pool.submit(converse, kept, done)
        try:
            # Its endpoint, its ports, how it is reached, who goes where.
            api.patch(path, {"spec": {"selector": {"name": "web-1"}}})
            until(lambda: answers(ip, 80, "web-1"))
            ports = [*made["spec"]["ports"], {"name": "more", "port": 81}]
            ports[-1]["targetPort"] = "http"
            api.patch(path, {"spec": {"ports": ports, "type": "NodePort"}})
            until(lambda: answers(ip, 81, "web-1"))
            api.patch(path, {"spec": {"sessionAffinity": "ClientIP"}})
            api.patch(path, {"spec": {"selector": {"name": "nobody"}}})
            until(lambda: is_refused(ip, 81))
            assert not heard.done()
            api.patch(path, {"spec": {"selector": {"name": "web-0"}}})
            until(lambda: answers(ip, 81, "web-0"))
        finally:
            done.set()
        assert heard.result() > 0


def test_nobody_behind_a_service_is_told_at_once(serve, sh):
    made = serve("nobody", ready=0, type="NodePort", selector={"app": "nobody"})
    port = made["spec"]["ports"][0]["nodePort"]

    until(lambda: is_refused(ip_of(made), 80))
    until(lambda: is_refused("127.0.0.1", port))
    assert "refused" in sh("timeout 3 wget -qO- http://nobody 2>&1 || true")


def test_a_pod_that_is_not_ready_gets_no_clients(api, serve):
    api.create(server("late", app="late", ready="test -e /ready"))
    api.until_pod("late", lambda p: p.get("status", {}).get("podIP"), namespace=SPACE)
    made = serve("late", ready=0, selector={"app": "late"})
    serve("early", ready=1, selector={"app": "late"}, publishNotReadyAddresses=True)

    assert is_refused(ip_of(made), 80)
    api.delete(f"/api/v1/namespaces/{SPACE}/pods/late", gracePeriodSeconds=0)


def test_a_host_port_answers_on_every_address_of_the_host(api, space, sh):
    ports = [{"containerPort": 8080, "hostPort": 18099}]
    document = server("hosted", app="hosted")
    document["spec"]["containers"][0]["ports"] = ports
    api.create(document)
    node_ip = api.until_pod("hosted", is_ready, namespace=SPACE)["status"]["hostIP"]
    until(lambda: answers("127.0.0.1", 18099, "hosted"))

    assert get(node_ip, 18099) == "hosted"
    assert sh(f"wget -qO- http://{node_ip}:18099").strip() == "hosted"

    api.delete(f"/api/v1/namespaces/{SPACE}/pods/hosted", gracePeriodSeconds=0)
    until(lambda: is_refused("127.0.0.1", 18099))


def test_local_policies_serve_what_is_here(serve):
    made = serve(
        "local",
        type="NodePort",
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        ports=[{"port": 80, "targetPort": "http"}],
    )
    port = made["spec"]["ports"][0]["nodePort"]

    until(lambda: not is_refused("127.0.0.1", port))
    assert get("127.0.0.1", port) in {"web-0", "web-1"}
    assert get(ip_of(made), 80) in {"web-0", "web-1"}


# --- names


def lookup(sh, name: str, kind: str = "") -> str:
    return sh(f"nslookup {f'-type={kind}' if kind else ''} {name} 2>&1 || true")


def addresses(text: str) -> set[str]:
    """Return the addresses an nslookup printed, without the server's."""
    return set(re.findall(r"^Address: (\S+)$", text, re.MULTILINE))


FULL = f"{SPACE}.svc.cluster.local"


def test_pods_ask_the_cluster(api, instance, sh):
    dns = api.must("GET", "/api/v1/namespaces/kube-system/services/kube-dns")

    conf = sh("cat /etc/resolv.conf")

    assert f"nameserver {ip_of(dns)}\n" in conf
    assert f"search {FULL} svc.cluster.local cluster.local" in conf
    assert not [e for e in api.events("client", SPACE) if "MissingClusterDNS" in e]


def test_a_pod_on_the_hosts_network_may_ask_the_cluster_too(api, serve, sh):
    made = serve("seen-by-host", ready=None)
    api.create(
        pod(
            "on-host",
            namespace=SPACE,
            hostNetwork=True,
            dnsPolicy="ClusterFirstWithHostNet",
        )
    )
    api.until_pod("on-host", is_ready, namespace=SPACE)

    found = sh(f"nslookup seen-by-host.{SPACE}.svc.cluster.local", "on-host")

    assert ip_of(made) in found


def test_services_have_names(serve, sh, api):
    made = serve("named")
    serve("heads", clusterIP="None")
    pods = {n: api.pod(n, SPACE)["status"]["podIP"] for n in ("web-0", "web-1")}

    assert addresses(lookup(sh, f"named.{FULL}")) == {ip_of(made)}
    assert addresses(lookup(sh, f"heads.{FULL}")) == set(pods.values())
    assert addresses(lookup(sh, f"web-1.heads.{FULL}")) == {pods["web-1"]}
    assert sh("wget -qO- http://web-0.heads:8080").strip() == "web-0"
    located = lookup(sh, f"_http._tcp.heads.{FULL}", "SRV")
    assert {f"0 50 8080 {name}.heads.{FULL}" for name in pods} == set(
        re.findall(r"service = (.*)$", located, re.MULTILINE)
    )
    assert f"0 100 80 named.{FULL}" in lookup(sh, f"_http._tcp.named.{FULL}", "SRV")
    assert f"name = named.{FULL}" in lookup(sh, ip_of(made))
    dashed = pods["web-0"].replace(".", "-")
    assert addresses(lookup(sh, f"{dashed}.{SPACE}.pod.cluster.local")) == {
        pods["web-0"]
    }


def test_an_external_name_is_an_alias(serve, sh):
    made = serve("target")
    serve(
        "alias",
        type="ExternalName",
        externalName=f"target.{FULL}",
        selector=None,
        ports=None,
        ready=None,
    )

    assert f"canonical name = target.{FULL}" in lookup(sh, f"alias.{FULL}")
    assert sh("wget -qO- http://alias").strip() in {"web-0", "web-1"}
    assert ip_of(made) in addresses(lookup(sh, f"alias.{FULL}"))


def test_a_name_that_is_not_there_is_denied(sh):
    assert "NXDOMAIN" in lookup(sh, f"nothing.{FULL}")


def test_dns_answers_over_tcp_and_from_the_host(api, serve):
    made = serve("over-tcp")
    server_ip = ip_of(
        api.must("GET", "/api/v1/namespaces/kube-system/services/kube-dns")
    )
    wire = dns.message.make_query(f"over-tcp.{FULL}", "A").to_wire()
    with socket.create_connection((server_ip, 53), timeout=5) as client:
        client.sendall(len(wire).to_bytes(2, "big") + wire)
        answer = client.recv(4096)[2:]

    assert ip_of(made) in dns.message.from_wire(answer).answer[0].to_text()


# --- and afterwards


def test_deleted_services_leave_no_rule(api, instance, serve):
    made = serve("passing", type="NodePort")
    until(lambda: not is_refused(ip_of(made), 80))
    table = ["nft", "list", "table", "inet", f"podyard-{instance.name}"]
    listed = subprocess.run(table, capture_output=True, text=True, check=True).stdout
    assert ip_of(made) in listed

    api.delete(path_of(made, SPACE, "passing"))

    def is_clean() -> bool:
        done = subprocess.run(table, capture_output=True, text=True, check=True)
        return ip_of(made) not in done.stdout

    until(is_clean)


def test_dns_can_be_switched_off(tmp_path):
    name = f"nodns-{tmp_path.name[-8:].strip('_').replace('_', '-')}"
    with running_podyard(name, tmp_path / "d", "--built-in-dns", "false") as running:
        api = Api(running.kubeconfig)
        try:
            path = "/api/v1/namespaces/kube-system/services"
            assert api.must("GET", path)["items"] == []
            api.create(pod("p"))
            api.until_event("p", "Warning MissingClusterDNS")
        finally:
            api.close()
