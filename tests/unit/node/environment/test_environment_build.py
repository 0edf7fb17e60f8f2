"""What a container finds around it: variables, hosts, resolver, host name."""

import base64

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.runtime import DNSConfig
from podyard.node.environment.build import (
    DNSSettings,
    EnvironmentSources,
    Hostname,
    SourceError,
    build_dns_config,
    build_environment,
    build_hostname,
    build_hosts_file,
    build_service_environment,
    find_references,
    parse_env_file,
    parse_resolv_conf,
    to_mapping,
)
from podyard.node.environment.parts import EnvironmentBuildError


def make_pod(*, container=None, metadata=None, **spec):
    base = {"name": "c", "image": "busybox"} | (container or {})
    meta = {"name": "web", "namespace": "ns", "uid": "u-1"} | (metadata or {})
    return Pod.of(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"containers": [base]} | spec,
        }
    )


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


CONFIG = {"data": {"k": "v", "other": "o"}, "binaryData": {"bin": b64(b"x")}}
SECRET = {"data": {"k": b64(b"sv")}}


def build(pod, **sources):
    known = {
        "config_maps": {"cm": CONFIG, "absent": None, "broken": SourceError("boom")},
        "secrets": {"s": SECRET, "absent": None},
        "pod_ips": ("10.0.0.2", "fd00::2"),
        "host_ips": ("192.0.2.1", "2001:db8::1"),
        "node_allocatable": {
            "cpu": "3500m",
            "memory": "4Gi",
            "ephemeral-storage": "10G",
        },
    } | sources
    return build_environment(pod, pod.spec.containers[0], EnvironmentSources(**known))


def env_of(*entries, env_from=(), **sources):
    pod = make_pod(
        container={"env": list(entries), "envFrom": list(env_from)},
        metadata={
            "labels": {"app": "x", "a/b": 'q"'},
            "annotations": {"note": "line\nbreak"},
        },
        nodeName="n1",
        serviceAccountName="robot",
    )
    return to_mapping(build(pod, **sources))


def field(path):
    return {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "line\nbreak"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1,2001:db8::1"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,fd00::2"),
    ],
)
def test_every_field_a_variable_may_show(path, expected):
    assert env_of(field(path)) == {"F": expected}


def test_an_unknown_field_is_an_error():
    with pytest.raises(EnvironmentBuildError, match=r"unsupported fieldPath: spec.x"):
        env_of(field("spec.x"))


def resource(name, *, divisor=None, container=""):
    selector = {"resource": name}
    if divisor:
        selector["divisor"] = divisor
    if container:
        selector["containerName"] = container
    return {"name": "R", "valueFrom": {"resourceFieldRef": selector}}


RESOURCES = {
    "requests": {"cpu": "250m", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
    "limits": {"memory": "100M", "hugepages-2Mi": "4Mi"},
}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param(resource("requests.cpu"), "1", id="cores-round-up"),
        pytest.param(resource("requests.cpu", divisor="1m"), "250", id="millicores"),
        pytest.param(resource("requests.memory"), "67108864", id="bytes"),
        pytest.param(resource("requests.memory", divisor="1Mi"), "64", id="mebi"),
        pytest.param(resource("limits.memory", divisor="1Mi"), "96", id="rounds-up"),
        pytest.param(resource("limits.memory", divisor="0"), "100000000", id="zero"),
        pytest.param(resource("limits.cpu"), "4", id="no-limit-is-allocatable"),
        pytest.param(
            resource("limits.ephemeral-storage", divisor="1G"), "10", id="storage"
        ),
        pytest.param(
            resource("requests.ephemeral-storage"), "0", id="no-request-is-nothing"
        ),
        pytest.param(
            resource("limits.hugepages-2Mi", divisor="1Mi"), "4", id="hugepages"
        ),
        pytest.param(
            resource("limits.hugepages-1Gi"), "0", id="hugepages-have-no-default"
        ),
        pytest.param(resource("limits.cpu", container="c"), "4", id="names-itself"),
    ],
)
def test_resources_in_units_of_their_divisor(selector, expected):
    pod = make_pod(container={"env": [selector], "resources": RESOURCES})

    assert to_mapping(build(pod)) == {"R": expected}


def test_a_missing_limit_falls_back_to_the_pods_own_first():
    pod = make_pod(
        container={"env": [resource("limits.cpu")]},
        resources={"limits": {"cpu": "2"}},
    )

    assert to_mapping(build(pod)) == {"R": "2"}


def test_resources_of_an_unknown_container_are_an_error():
    with pytest.raises(EnvironmentBuildError, match=r"^container x not found$"):
        env_of(resource("limits.cpu", container="x"))


def key_ref(kind, name, key, *, optional=None):
    selector = {"name": name, "key": key}
    if optional is not None:
        selector["optional"] = optional
    return {"name": "K", "valueFrom": {kind: selector}}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(key_ref("configMapKeyRef", "cm", "k"), {"K": "v"}, id="cm"),
        pytest.param(key_ref("secretKeyRef", "s", "k"), {"K": "sv"}, id="secret"),
        pytest.param(
            key_ref("configMapKeyRef", "cm", "no", optional=True), {}, id="no-key"
        ),
        pytest.param(
            key_ref("configMapKeyRef", "absent", "k", optional=True), {}, id="no-cm"
        ),
        pytest.param(
            key_ref("secretKeyRef", "absent", "k", optional=True), {}, id="no-secret"
        ),
        pytest.param(
            key_ref("secretKeyRef", "s", "no", optional=True), {}, id="no-secret-key"
        ),
    ],
)
def test_keys_are_read_and_optional_ones_left_out(entry, expected):
    assert env_of(entry) == expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(
            key_ref("configMapKeyRef", "cm", "no"),
            "couldn't find key no in ConfigMap ns/cm",
            id="config-map-key",
        ),
        pytest.param(
            key_ref("configMapKeyRef", "cm", "bin"),
            "couldn't find key bin in ConfigMap ns/cm",
            id="binary-data-does-not-count",
        ),
        pytest.param(
            key_ref("secretKeyRef", "s", "no"),
            "couldn't find key no in Secret ns/s",
            id="secret-key",
        ),
        pytest.param(
            key_ref("configMapKeyRef", "absent", "k"),
            'configmap "absent" not found',
            id="config-map",
        ),
        pytest.param(
            key_ref("secretKeyRef", "absent", "k"),
            'secret "absent" not found',
            id="secret",
        ),
        pytest.param(
            key_ref("configMapKeyRef", "broken", "k", optional=True),
            "boom",
            id="a-failed-read-is-never-optional",
        ),
    ],
)
def test_what_is_missing_is_named(entry, message):
    with pytest.raises(EnvironmentBuildError) as caught:
        env_of(entry)

    assert caught.value.message == message


def test_static_pods_may_refer_to_no_object():
    pod = make_pod(
        container={"env": [key_ref("secretKeyRef", "s", "k")]},
        metadata={"annotations": {"kubernetes.io/config.source": "file"}},
    )

    with pytest.raises(EnvironmentBuildError) as caught:
        build(pod)

    assert caught.value.message == "couldn't get secret ns/s, no kubeClient defined"


def test_secret_bytes_that_are_text_are_carried_exactly():
    secret = {"data": {"raw": b64("é\n\t€".encode())}}
    entries = (
        key_ref("secretKeyRef", "s", "raw"),
        {"name": "COPY", "value": "<$(K)>"},
    )
    pod = make_pod(container={"env": list(entries)})

    built = {v.name: v.value for v in build(pod, secrets={"s": secret})}

    assert built == {"K": "é\n\t€".encode(), "COPY": "<é\n\t€>".encode()}


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        pytest.param(b"\xff\xfe", "bytes that are no UTF-8", id="no-text"),
        pytest.param(b"a\0b", "a NUL byte", id="nul"),
    ],
)
@pytest.mark.parametrize(
    ("container", "name"),
    [
        pytest.param({"env": [key_ref("secretKeyRef", "s", "raw")]}, "K", id="env"),
        pytest.param({"envFrom": [{"secretRef": {"name": "s"}}]}, "raw", id="from"),
    ],
)
def test_bytes_no_runtime_can_carry_are_refused(raw, what, container, name):
    with pytest.raises(EnvironmentBuildError) as caught:
        build(make_pod(container=container), secrets={"s": {"data": {"raw": b64(raw)}}})

    assert caught.value.message == (
        f'environment variable "{name}" holds {what}, which cannot be carried exactly: '
        "mount its source as a volume instead"
    )


def test_env_from_takes_every_key_and_later_sources_win():
    built = env_of(
        {"name": "other", "value": "own"},
        env_from=[
            {"configMapRef": {"name": "cm"}},
            {"secretRef": {"name": "s"}, "prefix": "P_"},
            {"secretRef": {"name": "s"}},
            {"configMapRef": {"name": "absent", "optional": True}},
        ],
    )

    assert built["k"] == "sv"
    assert built["P_k"] == "sv"
    assert built["other"] == "own"
    assert "bin" not in built


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapRef": {"name": "absent"}}, 'configmap "absent" not found'),
        ({"secretRef": {"name": "absent"}}, 'secret "absent" not found'),
    ],
    ids=["config-map", "secret"],
)
def test_env_from_names_what_is_missing(source, message):
    with pytest.raises(EnvironmentBuildError) as caught:
        env_of(env_from=[source])

    assert caught.value.message == message


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param(
            [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}],
            {"A": "1", "B": "12"},
            id="earlier-entries-are-seen",
        ),
        pytest.param(
            [{"name": "B", "value": "$(A)2"}, {"name": "A", "value": "1"}],
            {"B": "$(A)2", "A": "1"},
            id="later-entries-are-not",
        ),
        pytest.param(
            [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}],
            {"A": "12"},
            id="the-last-of-a-name-wins-and-sees-the-one-before",
        ),
        pytest.param([{"name": "A"}], {"A": ""}, id="no-value-is-empty"),
        pytest.param([{"name": "A", "value": ""}], {"A": ""}, id="empty-is-empty"),
        pytest.param(
            [{"name": "A", "value": "$(X_SERVICE_HOST)"}],
            {"A": "10.96.0.9"},
            id="services-are-seen",
        ),
    ],
)
def test_declared_values_see_what_is_known_so_far(entries, expected):
    service = make_service("x", ports=[{"port": 1}])
    built = env_of(*entries, services=[service])

    assert {k: v for k, v in built.items() if not k.startswith("X_")} == expected


def test_variables_come_in_declared_order_and_services_last():
    pod = make_pod(
        container={"env": [{"name": "Z", "value": ""}, {"name": "A", "value": ""}]}
    )

    names = [v.name for v in build(pod, services=[make_service("x", ports=[])])]

    assert names == ["Z", "A", "X_SERVICE_HOST"]


def test_declared_variables_win_over_services():
    built = env_of(
        {"name": "X_SERVICE_HOST", "value": "mine"}, services=[make_service("x")]
    )

    assert built["X_SERVICE_HOST"] == "mine"


def test_services_must_have_been_read_once():
    with pytest.raises(EnvironmentBuildError) as caught:
        env_of(services=None)

    assert caught.value.message == (
        "services have not yet been read at least once, cannot construct envvars"
    )


def make_service(name, *, namespace="ns", ip="10.96.0.9", ports=None):
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}] if ports is None else ports},
    }


def test_a_service_gives_the_docker_links_set():
    service = make_service(
        "redis-primary",
        ports=[
            {"name": "main-port", "port": 6379, "protocol": "TCP"},
            {"name": "gossip", "port": 16379, "protocol": "UDP"},
        ],
    )

    assert build_service_environment(make_pod(), [service]) == {
        "REDIS_PRIMARY_SERVICE_HOST": "10.96.0.9",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
        "REDIS_PRIMARY_SERVICE_PORT_MAIN_PORT": "6379",
        "REDIS_PRIMARY_SERVICE_PORT_GOSSIP": "16379",
        "REDIS_PRIMARY_PORT": "tcp://10.96.0.9:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.96.0.9:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.96.0.9",
        "REDIS_PRIMARY_PORT_16379_UDP": "udp://10.96.0.9:16379",
        "REDIS_PRIMARY_PORT_16379_UDP_PROTO": "udp",
        "REDIS_PRIMARY_PORT_16379_UDP_PORT": "16379",
        "REDIS_PRIMARY_PORT_16379_UDP_ADDR": "10.96.0.9",
    }


def test_ipv6_is_bracketed_in_urls_only():
    built = build_service_environment(make_pod(), [make_service("x", ip="fd00::1")])

    assert built["X_SERVICE_HOST"] == "fd00::1"
    assert built["X_PORT"] == "tcp://[fd00::1]:80"
    assert built["X_PORT_80_TCP_ADDR"] == "fd00::1"


MASTER = make_service("kubernetes", namespace="default", ip="10.96.0.1")


@pytest.mark.parametrize(
    ("service", "links", "expected"),
    [
        pytest.param(make_service("x"), True, True, id="own-namespace"),
        pytest.param(make_service("x"), False, False, id="links-off"),
        pytest.param(make_service("x", namespace="b"), True, False, id="foreign"),
        pytest.param(make_service("x", ip="None"), True, False, id="headless"),
        pytest.param(make_service("x", ip=""), True, False, id="external-name"),
        pytest.param(MASTER, True, True, id="api-server"),
        pytest.param(MASTER, False, True, id="api-server-links-off"),
    ],
)
def test_which_services_a_pod_sees(service, links, expected):
    pod = make_pod(enableServiceLinks=links)

    assert bool(build_service_environment(pod, [service])) is expected


def test_a_service_named_kubernetes_of_the_own_namespace_replaces_the_api_servers():
    own = make_service("kubernetes", ip="10.96.0.50")

    for order in ([MASTER, own], [own, MASTER]):
        built = build_service_environment(make_pod(), order)
        assert built["KUBERNETES_SERVICE_HOST"] == "10.96.0.50"


def test_references_are_found_in_order_of_use():
    pod = make_pod(
        container={
            "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
            "env": [
                key_ref("configMapKeyRef", "c", "k"),
                key_ref("secretKeyRef", "b", "k"),
                {
                    "name": "F",
                    "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p"}},
                },
            ],
        }
    )

    found = find_references(pod.spec.containers[0])

    assert found.config_maps == ("a", "c")
    assert found.secrets == ("b",)
    assert found.files == (("v", "p"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("K='v'", "v", id="quoted"),
        pytest.param("# c\n\n  K='v' # why", "v", id="comments"),
        pytest.param("K='a\nb'\n", "a\nb", id="over-lines"),
        pytest.param("K='1'\nK='2'", "1", id="first-wins"),
        pytest.param("K= 'v'", "", id="space-after-equals-is-empty"),
        pytest.param("OTHER='v'", "", id="absent"),
        pytest.param("K='$(X) \"\\n'", '$(X) "\\n', id="literal"),
        pytest.param("K='v'\nbroken", "v", id="what-comes-after-does-not-count"),
    ],
)
def test_env_files_are_read(text, expected):
    assert parse_env_file(text, "K") == expected


@pytest.mark.parametrize(
    "text",
    ["K=v", "K ='v'", "='v'", "K", "K='v", "K='v'x", "K="],
    ids=["unquoted", "space", "no-name", "no-equals", "no-end", "after", "nothing"],
)
def test_broken_env_files_are_refused(text):
    with pytest.raises(EnvironmentBuildError, match=r"^couldn't parse env file$"):
        parse_env_file(text, "K")


FILE = {"volumeName": "v", "path": "env", "key": "K"}


@pytest.mark.parametrize(
    ("text", "optional", "expected"),
    [
        pytest.param("K='v'", False, "v", id="there"),
        pytest.param("X='v'", True, None, id="optional-key"),
        pytest.param(SourceError("gone"), True, None, id="optional-file"),
        pytest.param(
            "X='v'",
            False,
            'environment variable key "K" not found in file "env"',
            id="no-key",
        ),
        pytest.param(
            SourceError("gone"), False, "couldn't parse env file", id="no-file"
        ),
    ],
)
def test_file_keys_are_read_from_an_empty_dir(text, optional, expected):
    entry = {"name": "F", "valueFrom": {"fileKeyRef": FILE | {"optional": optional}}}
    pod = make_pod(container={"env": [entry]}, volumes=[{"name": "v", "emptyDir": {}}])

    try:
        built = to_mapping(build(pod, files={("v", "env"): text})).get("F")
    except EnvironmentBuildError as error:
        built = error.message

    assert built == expected


def test_file_keys_need_their_volume():
    with pytest.raises(EnvironmentBuildError) as caught:
        env_of({"name": "F", "valueFrom": {"fileKeyRef": FILE}})

    assert caught.value.message == (
        'cannot find the volume "v" referenced by FileKeyRef'
    )


def test_values_never_show_in_a_repr():
    pod = make_pod(container={"env": [key_ref("secretKeyRef", "s", "k")]})

    assert "sv" not in repr(build(pod))


LONG = "a" * 70


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        pytest.param("web", {}, ("web", "", "web"), id="pod-name"),
        pytest.param("web", {"hostname": "h"}, ("h", "", "h"), id="hostname"),
        pytest.param(LONG, {}, ("a" * 63, "", "a" * 63), id="cut"),
        pytest.param(
            "b" * 61 + "-.-x", {}, ("b" * 61, "", "b" * 61), id="cut-and-trimmed"
        ),
        pytest.param(
            "web",
            {"subdomain": "s"},
            ("web", "s.ns.svc.cluster.local", "web"),
            id="subdomain",
        ),
        pytest.param(
            "web",
            {"subdomain": "s", "setHostnameAsFQDN": True},
            ("web", "s.ns.svc.cluster.local", "web.s.ns.svc.cluster.local"),
            id="fqdn",
        ),
        pytest.param(
            "web", {"setHostnameAsFQDN": True}, ("web", "", "web"), id="no-domain"
        ),
        pytest.param(
            "web", {"hostNetwork": True, "hostname": "h"}, ("h", "", ""), id="host"
        ),
        pytest.param(
            "web",
            {"hostnameOverride": "a.b.c", "subdomain": "s"},
            ("a.b.c", "", "a.b.c"),
            id="override",
        ),
    ],
)
def test_host_names(name, spec, expected):
    pod = make_pod(metadata={"name": name}, **spec)

    assert build_hostname(pod, cluster_domain="cluster.local") == Hostname(*expected)


def test_a_full_name_too_long_for_the_kernel_is_refused():
    pod = make_pod(metadata={"name": "w" * 50}, subdomain="s", setHostnameAsFQDN=True)

    with pytest.raises(EnvironmentBuildError) as caught:
        build_hostname(pod, cluster_domain="cluster.local")

    full = "w" * 50 + ".s.ns.svc.cluster.local"
    assert caught.value.message == (
        "failed to construct FQDN from pod hostname and cluster domain, FQDN "
        f"{full} is too long (64 characters is the max, {len(full)} characters "
        "requested)"
    )


FIXED = (
    "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
)


@pytest.mark.parametrize(
    ("spec", "hostname", "expected"),
    [
        pytest.param(
            {},
            Hostname("web", "", "web"),
            FIXED + "10.0.0.2\tweb\nfd00::2\tweb\n",
            id="plain",
        ),
        pytest.param(
            {},
            Hostname("web", "s.ns.svc.d", "web"),
            FIXED + "10.0.0.2\tweb.s.ns.svc.d\tweb\nfd00::2\tweb.s.ns.svc.d\tweb\n",
            id="domain",
        ),
        pytest.param(
            {"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]},
            Hostname("web", "", "web"),
            FIXED + "10.0.0.2\tweb\nfd00::2\tweb\n\n# Entries added by HostAliases.\n"
            "1.2.3.4\ta\tb\n",
            id="aliases",
        ),
        pytest.param(
            {
                "hostNetwork": True,
                "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
            },
            Hostname("web", "", ""),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"
            "\n# Entries added by HostAliases.\n1.2.3.4\ta\n",
            id="host-network",
        ),
    ],
)
def test_the_managed_hosts_file(spec, hostname, expected):
    pod = make_pod(**spec)

    text = build_hosts_file(
        pod,
        pod_ips=("10.0.0.2", "fd00::2"),
        hostname=hostname,
        node_hosts="127.0.0.1 me\n",
    )

    assert text == expected


NODE = DNSConfig(("192.0.2.53",), ("corp.example",), ("timeout:1",))
SETTINGS = DNSSettings(("10.96.0.10",), "cluster.local", NODE)
CLUSTER = DNSConfig(
    ("10.96.0.10",),
    ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
    ("ndots:5",),
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, CLUSTER, id="cluster-first"),
        pytest.param({"hostNetwork": True}, NODE, id="cluster-first-on-host"),
        pytest.param(
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            CLUSTER,
            id="with-host-net",
        ),
        pytest.param({"dnsPolicy": "Default"}, NODE, id="default"),
        pytest.param(
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["9.9.9.9"],
                    "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
                },
            },
            DNSConfig(("9.9.9.9",), ("x",), ("ndots:2", "rotate")),
            id="none",
        ),
        pytest.param(
            {
                "dnsConfig": {
                    "nameservers": ["9.9.9.9", "10.96.0.10"],
                    "searches": ["x", "cluster.local"],
                    "options": [{"name": "ndots", "value": "1"}],
                }
            },
            DNSConfig(
                ("10.96.0.10", "9.9.9.9"), (*CLUSTER.searches, "x"), ("ndots:1",)
            ),
            id="merged",
        ),
    ],
)
def test_the_resolver_by_policy(spec, expected):
    config, remarks = build_dns_config(make_pod(**spec), SETTINGS)

    assert config == expected
    assert remarks == ()


def test_without_cluster_dns_the_nodes_resolver_is_used_and_told():
    config, remarks = build_dns_config(make_pod(), DNSSettings(node=NODE))

    assert config == NODE
    assert [r.reason for r in remarks] == ["MissingClusterDNS"]
    assert remarks[0].message == (
        'pod: "web_ns(u-1)". kubelet does not have ClusterDNS IP configured and '
        'cannot create Pod using "ClusterFirst" policy. Falling back to "Default" '
        "policy."
    )


def test_what_is_over_the_limits_is_left_out_and_told():
    pod = make_pod(
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"],
            "searches": [f"d{n}" for n in range(40)],
        },
    )

    config, remarks = build_dns_config(pod, SETTINGS)

    assert config.servers == ("1.1.1.1", "2.2.2.2", "3.3.3.3")
    assert len(config.searches) == 32
    assert [r.message.split(",")[0] for r in remarks] == [
        "Nameserver limits were exceeded",
        "Search Line limits were exceeded",
    ]
    assert remarks[0].message.endswith("line is: 1.1.1.1 2.2.2.2 3.3.3.3")


def test_search_lines_have_a_length():
    pod = make_pod(
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["1.1.1.1"],
            "searches": ["x" * 200 + str(n) for n in range(20)],
        },
    )

    config, remarks = build_dns_config(pod, SETTINGS)

    assert len(" ".join(config.searches)) <= 2048
    assert len(remarks) == 1


def test_resolv_conf_is_read():
    text = "# c\nnameserver 1.1.1.1 # why\nnameserver ::1\nsearch a b.\nsearch c. .\noptions x ndots:2\noptions y\n;n\n"

    assert parse_resolv_conf(text) == DNSConfig(
        ("1.1.1.1", "::1"), ("c", "."), ("x", "ndots:2", "y")
    )
