"""What a container finds when it wakes up: variables, files, names.

Real Pods print what they see; it is compared with what the Kubernetes pages say.
"""

import base64
import hashlib
import json
import re
import tarfile
from pathlib import Path

import pytest

from podyard.api.documents import Document
from podyard.containerd.archives import (
    Descriptor,
    ImageArchive,
    digest_of,
    memory_blob,
    to_json,
)
from podyard.containerd.own_images import write_archive
from support.api import (
    Api,
    has_ended,
    is_ready,
    path_of,
    phase,
    pod_path,
    statuses,
    until,
)
from support.manifests import IMAGE, SLEEP, container, namespace, pod

SPACE = "wakes-up"
RAW = bytes(range(1, 256))
WITH_NUL = b"a\0b"
BIG = b"x" * 700_000
LINES = "one\ntwo\n\tthree 'quoted' $HOME `id`\n"
#: Prints a section: its name, then whatever comes in, in base64.
SHOW = 'show() { echo "== $1 $(base64 | tr -d "\\n")"; }; '


def show(**sections: str) -> str:
    """Return a script that prints the output of several commands."""
    return SHOW + " ".join(
        f"{{ {command}; }} 2>&1 | show {name};" for name, command in sections.items()
    )


def read(log: str) -> dict[str, bytes]:
    found = re.findall(r"^== (\S+) ?(\S*)$", log, re.MULTILINE)
    return {name: base64.b64decode(text) for name, text in found}


def variables(raw: bytes) -> dict[str, bytes]:
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {name.decode(): value for name, _, value in pairs}


def key(kind: str, name: str, of: str, **more: object) -> Document:
    return {"valueFrom": {f"{kind}KeyRef": {"name": name, "key": of, **more}}}


def field(path: str) -> Document:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, **more: str) -> Document:
    return {"valueFrom": {"resourceFieldRef": {"resource": name, **more}}}


def literal(value: str) -> Document:
    return {"value": value}


def env(*pairs: tuple[str, Document]) -> list[Document]:
    return [{"name": name, **source} for name, source in pairs]


def derived_image(instance, tmp_path: Path, name: str, **config: object) -> str:
    """Load the demo image once more, with another name and config."""
    saved, made = tmp_path / "saved.tar", tmp_path / "made.tar"
    instance.cli("image", "save", IMAGE, "-o", str(saved))
    with tarfile.open(saved) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}

    def blob(digest: str) -> bytes:
        return files["blobs/" + digest.replace(":", "/")]

    index = json.loads(files["index.json"])
    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    document = json.loads(blob(manifest["config"]["digest"]))
    document["config"].update(config)
    new = to_json(document)
    manifest["config"].update(digest=digest_of(new), size=len(new))
    layers = [blob(layer["digest"]) for layer in manifest["layers"]]
    whole = to_json(manifest)
    target = Descriptor(manifest["mediaType"], digest_of(whole), len(whole))
    blobs = {digest_of(data): memory_blob(data) for data in (new, whole, *layers)}
    write_archive(ImageArchive({name: target}, blobs), made)
    instance.cli("image", "load", str(made))
    return name


ENV_FROM = [
    {"configMapRef": {"name": "cm"}},
    {"prefix": "PRE_", "configMapRef": {"name": "cm"}},
    {"secretRef": {"name": "secret"}},
    {"configMapRef": {"name": "absent", "optional": True}},
]
ENV = env(
    ("EMPTY", literal("")),
    ("FIRST", literal("1")),
    ("REF", literal("$(FIRST) $(cm-only) $(LATER) $$(FIRST) $() $(open")),
    ("LATER", literal("later")),
    ("both", literal("from env")),
    ("TWICE", literal("a")),
    ("TWICE", literal("$(TWICE)b")),
    ("NO_IMAGE_ENV", literal("$(FROM_IMAGE)")),
    ("IMAGE_OVERRIDDEN", literal("by the Pod")),
    ("MASTER", literal("$(KUBERNETES_SERVICE_PORT)")),
    ("POD_NAME", field("metadata.name")),
    ("POD_NAMESPACE", field("metadata.namespace")),
    ("LABEL", field("metadata.labels['app']")),
    ("NO_LABEL", field("metadata.labels['none']")),
    ("NOTE", field("metadata.annotations['example.com/note']")),
    ("NODE", field("spec.nodeName")),
    ("ACCOUNT", field("spec.serviceAccountName")),
    ("POD_IP", field("status.podIP")),
    ("POD_IPS", field("status.podIPs")),
    ("HOST_IP", field("status.hostIP")),
    ("CPU", resource("limits.cpu")),
    ("MILLI", resource("limits.cpu", divisor="1m")),
    ("MEMORY", resource("requests.memory", divisor="1Mi")),
    ("MEMORY_LIMIT", resource("limits.memory")),
    ("CM_KEY", key("configMap", "cm", "both")),
    ("CM_NO_KEY", key("configMap", "cm", "none", optional=True)),
    ("CM_NONE", key("configMap", "absent", "x", optional=True)),
    ("SECRET_KEY", key("secret", "secret", "lines")),
    ("odd name: {}", literal("odd")),
    (
        "FROM_FILE",
        {
            "valueFrom": {
                "fileKeyRef": {"volumeName": "made", "path": "env", "key": "GREETING"}
            }
        },
    ),
    (
        "NOT_IN_FILE",
        {
            "valueFrom": {
                "fileKeyRef": {
                    "volumeName": "made",
                    "path": "env",
                    "key": "NONE",
                    "optional": True,
                }
            }
        },
    ),
)

VOLUMES: list[Document] = [
    {"name": "made", "emptyDir": {}},
    {"name": "small", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    {"name": "cm", "configMap": {"name": "cm", "defaultMode": 0o440}},
    {
        "name": "chosen",
        "configMap": {
            "name": "cm",
            "items": [
                {"key": "both", "path": "deep/er/both", "mode": 0o600},
                {"key": "cm-only", "path": "only"},
            ],
        },
    },
    {"name": "bytes", "secret": {"secretName": "bytes", "defaultMode": 0o400}},
    {"name": "absent", "secret": {"secretName": "absent", "optional": True}},
    {
        "name": "down",
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}},
                {
                    "path": "cpu",
                    "resourceFieldRef": {
                        "containerName": "main",
                        "resource": "limits.cpu",
                        "divisor": "1m",
                    },
                },
            ]
        },
    },
    {
        "name": "all",
        "projected": {
            "sources": [
                {
                    "configMap": {
                        "name": "cm",
                        "items": [{"key": "both", "path": "a/b"}],
                    }
                },
                {
                    "secret": {
                        "name": "secret",
                        "items": [{"key": "lines", "path": "l"}],
                    }
                },
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}
                        ]
                    }
                },
                {
                    "serviceAccountToken": {
                        "path": "t",
                        "audience": "vault",
                        "expirationSeconds": 600,
                    }
                },
            ]
        },
    },
]
MOUNTS = [
    {"name": "made", "mountPath": "/made"},
    {"name": "made", "mountPath": "/ro", "readOnly": True},
    {"name": "made", "mountPath": "/sub", "subPath": "a/b"},
    {"name": "made", "mountPath": "/expr", "subPathExpr": "$(POD_NAME)/$(FIRST)"},
    {"name": "small", "mountPath": "/small"},
    {"name": "cm", "mountPath": "/cm"},
    {"name": "cm", "mountPath": "/one-file", "subPath": "both"},
    {"name": "chosen", "mountPath": "/chosen"},
    {"name": "bytes", "mountPath": "/bytes"},
    {"name": "absent", "mountPath": "/absent"},
    {"name": "down", "mountPath": "/down"},
    {"name": "all", "mountPath": "/all"},
]
PRINTS = show(
    env="cat /proc/1/environ",
    hostname="hostname",
    hosts="cat /etc/hosts",
    resolv="cat /etc/resolv.conf",
    pwd="pwd",
    id="id -G",
    modes="cd /; stat -L -c '%n %a %u:%g' cm/* chosen/deep/er/both chosen/only "
    "bytes/raw made small down/cpu",
    bytes="cat /bytes/raw",
    nul="cat /bytes/nul",
    lines="cat /all/l",
    big="md5sum < /bytes/big",
    only="cat /chosen/only",
    listed="ls /chosen /absent /all /cm",
    onefile="cat /one-file",
    labels="cat /down/labels",
    notes="cat /down/notes",
    cpu="cat /down/cpu",
    token="cut -d. -f2 /all/t",
    account="ls /var/run/secrets/kubernetes.io/serviceaccount",
    sub="touch /sub/x /expr/y; cd /made; find . -type f | sort",
    ro="touch /ro/x",
    rocm="touch /cm/x",
    small="dd if=/dev/zero of=/small/f bs=64k count=32",
)


def woken() -> Document:
    first = container("printf \"GREETING='hello\nyou' # x\n\" > /made/env", "first")
    first["volumeMounts"] = MOUNTS[:1]
    main = container(
        PRINTS + SLEEP,
        image="podyard.local/derived:1",
        workingDir="/tmp",
        env=ENV,
        envFrom=ENV_FROM,
        volumeMounts=MOUNTS,
        resources={
            "limits": {"cpu": "250m", "memory": "64Mi"},
            "requests": {"memory": "32Mi"},
        },
    )
    return pod(
        "woken",
        main,
        namespace=SPACE,
        labels={"app": "x", "z": "y"},
        annotations={"example.com/note": LINES},
        initContainers=[first],
        volumes=VOLUMES,
        hostname="shorter",
        subdomain="group",
        setHostnameAsFQDN=True,
        hostAliases=[{"ip": "192.0.2.7", "hostnames": ["a.example", "b.example"]}],
        securityContext={"fsGroup": 4242, "supplementalGroups": [77]},
    )


WRONG: dict[str, tuple[Document, str]] = {
    "no-map": (key("configMap", "absent", "x"), 'configmap "absent" not found'),
    "no-secret": (key("secret", "absent", "x"), 'secret "absent" not found'),
    "no-map-key": (
        key("configMap", "cm", "none"),
        f"couldn't find key none in ConfigMap {SPACE}/cm",
    ),
    "no-secret-key": (
        key("secret", "secret", "none"),
        f"couldn't find key none in Secret {SPACE}/secret",
    ),
    "no-file": (
        {"valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "k"}}},
        "couldn't parse env file",
    ),
}


def wrong() -> Document:
    bad = [
        container(name=n, env=env(("X", source))) for n, (source, _) in WRONG.items()
    ]
    bad.append(
        container(
            name="no-value",
            volumeMounts=[
                {"name": "v", "mountPath": "/v", "subPathExpr": "$(NONE)/$(EMPTY)"}
            ],
            env=env(("EMPTY", literal(""))),
        )
    )
    bad.append(
        container(
            name="not-recursive",
            volumeMounts=[
                {
                    "name": "v",
                    "mountPath": "/v",
                    "readOnly": True,
                    "recursiveReadOnly": "Enabled",
                    "mountPropagation": "None",
                }
            ],
        )
    )
    bad.append(
        container(name="all-map", envFrom=[{"configMapRef": {"name": "absent"}}])
    )
    bad.append(container(name="nul", env=env(("X", key("secret", "bytes", "nul")))))
    bad.append(container(name="raw", env=env(("X", key("secret", "bytes", "raw")))))
    return pod(
        "wrong",
        *bad,
        namespace=SPACE,
        volumes=[{"name": "v", "emptyDir": {}}],
    )


NAMED = show(hostname="hostname", hosts="cat /etc/hosts", resolv="cat /etc/resolv.conf")
EXTRA = {
    "nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
    "searches": ["extra.example"],
    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
}
LONG = "a-name-that-is-quite-long-and-goes-on-until-it-is-over-the-end-x.y"


def named() -> list[Document]:
    def one(name: str, **spec: object) -> Document:
        spec.setdefault("restartPolicy", "Never")
        return pod(name, container(NAMED), namespace=SPACE, **spec)

    return [
        one("plain"),
        one(LONG),
        one("overridden", hostnameOverride="other.example"),
        one("own-dns", dnsPolicy="None", dnsConfig=EXTRA),
        one("more-dns", dnsConfig=EXTRA),
        one(
            "on-host",
            hostNetwork=True,
            hostAliases=[{"ip": "192.0.2.7", "hostnames": ["a.example"]}],
        ),
        one("default-dns", dnsPolicy="Default"),
        one("host-cluster-dns", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
        one(
            "too-long",
            hostname="h" * 40,
            subdomain="s" * 40,
            setHostnameAsFQDN=True,
        ),
    ]


def commands() -> Document:
    table = {
        "neither": {},
        "args": {"args": ["pod args"]},
        "command": {"command": ["echo", "pod command"]},
        "both": {"command": ["echo", "pod"], "args": ["$(WHO) $$(WHO) $(NOBODY)"]},
    }
    made = [
        {
            "name": name,
            "image": "podyard.local/derived:1",
            "imagePullPolicy": "Never",
            "env": env(("WHO", literal("me"))),
            **fields,
        }
        for name, fields in table.items()
    ]
    return pod("commands", *made, namespace=SPACE, restartPolicy="Never")


def propagating() -> Document:
    def mounted(propagation: str) -> list[Document]:
        return [
            {"name": "v", "mountPath": "/v", "mountPropagation": propagation},
        ]

    wait = "until [ -e /v/done ]; do sleep 0.1; done; "
    look = "grep -c ' /v/inner ' /proc/mounts"
    makes = (
        "mkdir -p /v/inner; mount -t tmpfs none /v/inner; echo seen > /v/inner/f; "
        f"touch /v/done; {SLEEP}"
    )
    return pod(
        "propagating",
        container(f"{wait}{look}", "none", volumeMounts=mounted("None")),
        container(
            f"{wait}cat /v/inner/f", "sees", volumeMounts=mounted("HostToContainer")
        ),
        container(
            makes,
            "mounts",
            securityContext={"privileged": True},
            volumeMounts=mounted("Bidirectional"),
        ),
        namespace=SPACE,
        restartPolicy="Never",
        volumes=[{"name": "v", "emptyDir": {}}],
    )


@pytest.fixture(scope="module")
def world(instance, api: Api, tmp_path_factory) -> Api:
    """Everything these tests look at, under way."""
    derived_image(
        instance,
        tmp_path_factory.mktemp("image"),
        "podyard.local/derived:1",
        Entrypoint=["echo", "image entrypoint"],
        Cmd=["image cmd"],
        WorkingDir="/home",
        Env=["PATH=/bin", "FROM_IMAGE=image", "IMAGE_OVERRIDDEN=image"],
    )
    api.create(namespace(SPACE))
    account = f"/api/v1/namespaces/{SPACE}/serviceaccounts/default"
    until(lambda: not api.is_gone(account))
    big = base64.b64encode(BIG).decode()
    api.create(
        made("ConfigMap", "cm", data={"cm-only": "cm", "both": "map", "d.o-t": "x"}),
        made("Secret", "secret", stringData={"both": "secret", "lines": LINES}),
        made(
            "Secret",
            "bytes",
            data={
                "raw": base64.b64encode(RAW).decode(),
                "nul": base64.b64encode(WITH_NUL).decode(),
                "big": big,
            },
        ),
        made("ConfigMap", "live", data={"a": "1", "b": "1"}),
        namespace=SPACE,
    )
    for document in (woken(), wrong(), commands(), propagating(), *named()):
        api.create(document, namespace=SPACE)
    return api


def made(kind: str, name: str, **fields: object) -> Document:
    metadata = {"name": name, "namespace": SPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


@pytest.fixture(scope="module")
def seen(world: Api) -> dict[str, bytes]:
    """What the container of ``woken`` has printed."""
    world.until_pod("woken", is_ready, namespace=SPACE)
    return read(world.until_log("woken", "== small", namespace=SPACE, container="main"))


def printed(api: Api, name: str) -> dict[str, bytes]:
    api.until_pod(name, has_ended, namespace=SPACE)
    return read(api.log(name, SPACE))


# --- variables


def test_variables_come_from_everywhere_in_order(seen, world):
    found = variables(seen["env"])
    status = world.pod("woken", SPACE)["status"]

    ours = {
        "EMPTY": "",
        "FIRST": "1",
        "REF": "1 cm $(LATER) $(FIRST) $() $(open",
        "LATER": "later",
        "both": "from env",
        "PRE_both": "map",
        "cm-only": "cm",
        "PRE_cm-only": "cm",
        "d.o-t": "x",
        "lines": LINES,
        "TWICE": "ab",
        "NO_IMAGE_ENV": "$(FROM_IMAGE)",
        "FROM_IMAGE": "image",
        "IMAGE_OVERRIDDEN": "by the Pod",
        "PATH": "/bin",
        "MASTER": "443",
        "POD_NAME": "woken",
        "POD_NAMESPACE": SPACE,
        "LABEL": "x",
        "NO_LABEL": "",
        "NOTE": LINES,
        "NODE": world.pod("woken", SPACE)["spec"]["nodeName"],
        "ACCOUNT": "default",
        "POD_IP": status["podIP"],
        "POD_IPS": ",".join(one["ip"] for one in status["podIPs"]),
        "HOST_IP": status["hostIP"],
        "CPU": "1",
        "MILLI": "250",
        "MEMORY": "32",
        "MEMORY_LIMIT": str(64 << 20),
        "CM_KEY": "map",
        "SECRET_KEY": LINES,
        "odd name: {}": "odd",
        "FROM_FILE": "hello\nyou",
        "HOSTNAME": f"shorter.group.{SPACE}.svc.cluster.local",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    }
    assert {name: found.get(name, b"-").decode() for name in ours} == ours
    assert {"CM_NO_KEY", "CM_NONE", "NOT_IN_FILE"}.isdisjoint(found)


def test_a_missing_source_is_named_while_the_container_waits(world):
    def waiting() -> Document | None:
        found = {
            name: one["state"].get("waiting") or {}
            for name, one in statuses(world.pod("wrong", SPACE)).items()
        }
        told = all(one.get("message") for one in found.values())
        return found if found and told else None

    found = world.until_pod_and("wrong", waiting, SPACE)

    wanted = {name: text for name, (_, text) in WRONG.items()}
    wanted["no-value"] = "missing value for NONE, EMPTY"
    wanted["all-map"] = 'configmap "absent" not found'
    wanted["not-recursive"] = (
        'volume "v" requested recursive read-only mode, but it is not supported by the '
        "runtime"
    )
    for name, what in (("nul", "a NUL byte"), ("raw", "bytes that are no UTF-8")):
        wanted[name] = (
            f'environment variable "X" holds {what}, which cannot be carried exactly: '
            "mount its source as a volume instead"
        )
    assert {name: one["message"] for name, one in found.items()} == wanted
    assert {one["reason"] for one in found.values()} == {"CreateContainerConfigError"}
    assert any(
        event.startswith('Warning Failed Error: secret "absent" not found')
        for event in world.events("wrong", SPACE)
    )
    assert phase(world.pod("wrong", SPACE)) == "Pending"


def test_command_and_args_follow_the_table(world):
    world.until_pod("commands", has_ended, namespace=SPACE)

    assert {
        name: world.log("commands", SPACE, container=name)
        for name in ("neither", "args", "command", "both")
    } == {
        "neither": "image entrypoint image cmd\n",
        "args": "image entrypoint pod args\n",
        "command": "pod command\n",
        "both": "pod me $(WHO) $(NOBODY)\n",
    }


def test_bytes_are_carried_exactly_or_refused(seen, world):
    assert seen["bytes"] == RAW
    assert seen["nul"] == WITH_NUL
    assert seen["lines"].decode() == LINES
    assert seen["big"].split()[0].decode() == hashlib.md5(BIG).hexdigest()


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        pytest.param("ConfigMap", "../x", "a valid config key", id="leads-out"),
        pytest.param("ConfigMap", "..", "a valid config key", id="parent"),
        pytest.param("ConfigMap", "a/b", "a valid config key", id="slash"),
        pytest.param("ConfigMap", "a\nb", "a valid config key", id="newline"),
        pytest.param("Secret", "a\0b", "a valid config key", id="nul"),
        pytest.param("Secret", "k" * (1 << 20), "no more than 253", id="very-long"),
    ],
)
def test_hostile_keys_are_refused(world, kind, name, text):
    answer = world.ask(
        "POST",
        path_of(made(kind, "hostile"), SPACE),
        made(kind, "hostile", data={name: ""}),
    )

    assert answer.status == 422
    assert text in answer.document["message"] or ".." in answer.document["message"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "..x/y"], ids=str)
def test_hostile_paths_are_refused(world, path):
    items = [{"key": "both", "path": path}]
    volume = {"name": "v", "configMap": {"name": "cm", "items": items}}

    answer = world.ask(
        "POST",
        path_of(woken(), SPACE),
        pod("hostile", namespace=SPACE, volumes=[volume]),
    )

    assert answer.status == 422


# --- names


def test_the_host_name_may_be_the_full_one(seen, world):
    ip = world.pod("woken", SPACE)["status"]["podIP"]
    full = f"shorter.group.{SPACE}.svc.cluster.local"

    assert seen["hostname"].decode() == f"{full}\n"
    assert seen["hosts"].decode() == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        f"{ip}\t{full}\tshorter\n"
        "\n# Entries added by HostAliases.\n"
        "192.0.2.7\ta.example\tb.example\n"
    )


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        pytest.param("plain", "plain", id="the-name-of-the-pod"),
        pytest.param(LONG, LONG[:63].rstrip("-."), id="cut"),
        pytest.param("overridden", "other.example", id="overridden"),
    ],
)
def test_host_names(world, name, hostname):
    found = printed(world, name)

    assert found["hostname"].decode() == f"{hostname}\n"
    assert f"\t{hostname}\n" in found["hosts"].decode()


def test_a_full_name_too_long_for_the_kernel_is_told(world):
    event = world.until_event(
        "too-long", "Warning FailedCreatePodSandBox", namespace=SPACE
    )

    assert "failed to construct FQDN from pod hostname and cluster domain" in event
    assert "is too long (64 characters is the max" in event
    assert phase(world.pod("too-long", SPACE)) == "Pending"


def test_a_pod_on_the_hosts_network_has_the_hosts_names(world):
    found = printed(world, "on-host")
    head, _, rest = found["hosts"].decode().partition("\n")

    assert head == "# Kubernetes-managed hosts file (host network)."
    assert rest.startswith(Path("/etc/hosts").read_text())
    assert rest.endswith("\n# Entries added by HostAliases.\n192.0.2.7\ta.example\n")
    assert found["hostname"].decode() == Path("/proc/sys/kernel/hostname").read_text()


def resolver(raw: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in raw.decode().splitlines():
        words = line.split()
        if words:
            found.setdefault(words[0], []).extend(words[1:])
    return found


def test_resolvers_follow_the_policy(world):
    resolvers = {
        name: resolver(printed(world, name)["resolv"])
        for name in ("plain", "own-dns", "more-dns", "default-dns", "host-cluster-dns")
    }
    host = resolver(Path("/etc/resolv.conf").read_bytes())
    cluster = [f"{SPACE}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    plain = resolvers["plain"]

    assert plain["search"][:3] == cluster
    assert plain["options"] == ["ndots:5"]
    assert len(plain["nameserver"]) == 1
    assert resolvers["host-cluster-dns"] == plain
    assert resolvers["default-dns"].get("nameserver") == host.get("nameserver")
    own = resolvers["own-dns"]
    assert own["nameserver"] == EXTRA["nameservers"]
    assert own["search"] == ["extra.example"]
    assert sorted(own["options"]) == ["edns0", "ndots:2"]
    more = resolvers["more-dns"]
    assert more["nameserver"] == [*plain["nameserver"], "192.0.2.1", "192.0.2.2"]
    assert more["search"] == [*plain["search"], "extra.example"]
    world.until_event(
        "more-dns",
        "Warning DNSConfigForming Nameserver limits were exceeded, some nameservers "
        f"have been omitted, the applied nameserver line is: "
        f"{' '.join(more['nameserver'])}",
        namespace=SPACE,
    )


# --- files


def test_files_have_their_modes_and_owners(seen):
    modes = dict(
        line.split(" ", 1) for line in seen["modes"].decode().splitlines() if line
    )

    # The group of fsGroup may read what it owns, and write where that is allowed.
    assert modes == {
        "cm/both": "440 0:4242",
        "cm/cm-only": "440 0:4242",
        "cm/d.o-t": "440 0:4242",
        "chosen/deep/er/both": "640 0:4242",
        "chosen/only": "644 0:4242",
        "bytes/raw": "440 0:4242",
        "made": "2777 0:4242",
        "small": "3777 0:4242",
        "down/cpu": "644 0:4242",
    }
    assert set(seen["id"].split()) >= {b"4242", b"77"}


def test_volumes_hold_what_was_asked_for(seen):
    assert seen["only"] == b"cm"
    assert seen["onefile"] == b"map"
    assert seen["labels"] == b'app="x"\nz="y"'
    quoted = json.dumps(LINES)
    assert seen["notes"].decode() == f"example.com/note={quoted}"
    assert seen["cpu"] == b"250"
    assert seen["account"].split() == [b"ca.crt", b"namespace", b"token"]
    padded = seen["token"].strip() + b"=="
    assert json.loads(base64.urlsafe_b64decode(padded))["aud"] == ["vault"]
    assert seen["pwd"] == b"/tmp\n"
    assert seen["sub"].split() == [b"./a/b/x", b"./env", b"./woken/1/y"]
    assert b"Read-only file system" in seen["ro"]
    assert b"Read-only file system" in seen["rocm"]
    assert b"No space left on device" in seen["small"]


def test_mounts_propagate_as_asked(world):
    world.until_log("propagating", "seen", namespace=SPACE, container="sees")

    world.until_log("propagating", "0\n", namespace=SPACE, container="none")


def test_updates_are_seen_whole(world):
    """A reader that never stops sees the old files or the new ones, no mixture."""
    script = (
        "while true; do cd -P /live/..data && a=$(cat a) && b=$(cat b) && "
        '{ [ "$a" = "$b" ] || echo "MIXED $a $b"; '
        '[ "$a" = "$last" ] || echo "now $a"; last=$a; }; done'
    )
    world.create(
        pod(
            "reader",
            container(script, volumeMounts=[{"name": "live", "mountPath": "/live"}]),
            namespace=SPACE,
            volumes=[{"name": "live", "configMap": {"name": "live"}}],
        ),
        namespace=SPACE,
    )
    world.until_log("reader", "now 1\n", namespace=SPACE)
    path = f"/api/v1/namespaces/{SPACE}/configmaps/live"
    for value in ("2", "3", "4"):
        world.patch(path, {"data": {"a": value, "b": value}})
        world.until_log("reader", f"now {value}\n", namespace=SPACE)

    assert "MIXED" not in world.log("reader", SPACE)
    world.delete(pod_path("reader", SPACE), gracePeriodSeconds=0)


# --- claims


def claim(name: str, **spec: object) -> Document:
    return made(
        "PersistentVolumeClaim",
        name,
        spec={
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            **spec,
        },
    )


def using(name: str, claim_name: str, script: str) -> Document:
    return pod(
        name,
        container(script, volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        namespace=SPACE,
        restartPolicy="Never",
        securityContext={"runAsUser": 1000, "fsGroup": 4242},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}],
    )


def test_a_claims_data_outlives_its_pods_and_goes_with_the_claim(world, instance):
    path = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims/data"
    world.create(claim("data"), namespace=SPACE)
    world.until_event(
        "data",
        "Normal WaitForFirstConsumer waiting for first consumer to be created before "
        "binding",
        namespace=SPACE,
    )

    world.create(using("writer", "data", "echo kept > /data/f"), namespace=SPACE)
    world.until_pod("writer", has_ended, namespace=SPACE)
    world.delete(pod_path("writer", SPACE), gracePeriodSeconds=0)
    world.create(
        using("again", "data", f"cat /data/f; stat -c %a:%g /data; {SLEEP}"),
        namespace=SPACE,
    )
    log = world.until_log("again", "4242", namespace=SPACE)

    bound = world.must("GET", path)
    volume = bound["spec"]["volumeName"]
    kept = instance.data_dir / "volumes" / SPACE / f"data-{bound['metadata']['uid']}"
    assert log == "kept\n2777:4242\n"
    assert bound["status"]["phase"] == "Bound"
    assert bound["spec"]["storageClassName"] == "local-path"
    assert (kept / "f").read_text() == "kept\n"

    world.delete(path)
    assert world.must("GET", path)["metadata"]["finalizers"] == [
        "kubernetes.io/pvc-protection"
    ]
    world.delete(pod_path("again", SPACE), gracePeriodSeconds=0)
    until(lambda: world.is_gone(path))
    until(lambda: world.is_gone(f"/api/v1/persistentvolumes/{volume}"))
    assert not kept.exists()


def test_a_claim_for_one_pod_is_for_one_pod(world):
    world.create(claim("alone", accessModes=["ReadWriteOncePod"]), namespace=SPACE)
    first, second = (using(name, "alone", SLEEP) for name in ("first-one", "second"))
    world.create(first, namespace=SPACE)
    world.create(second, namespace=SPACE)
    world.until_pod("first-one", is_ready, namespace=SPACE)
    world.until_event(
        "second",
        "Warning FailedScheduling 0/1 nodes are available: node has pod using "
        "PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.",
        namespace=SPACE,
    )

    world.delete(pod_path("first-one", SPACE), gracePeriodSeconds=0)

    world.until_pod("second", is_ready, namespace=SPACE)
    world.delete(pod_path("second", SPACE), gracePeriodSeconds=0)


def test_a_claim_is_made_and_removed_with_the_pod_it_is_for(world):
    template = {"spec": claim("x")["spec"]}
    volume = {"name": "data", "ephemeral": {"volumeClaimTemplate": template}}
    document = using("owner", "x", f"echo x > /data/f; {SLEEP}")
    document["spec"]["volumes"] = [volume]
    path = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims/owner-data"

    world.create(document, namespace=SPACE)
    world.until_pod("owner", is_ready, namespace=SPACE)

    assert world.must("GET", path)["status"]["phase"] == "Bound"
    world.delete(pod_path("owner", SPACE), gracePeriodSeconds=0)
    until(lambda: world.is_gone(path))


def test_a_volume_made_by_hand_is_bound_and_mounted(world, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "f").write_text("by hand\n")
    world.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "by-hand", "labels": {"kind": "mine"}},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "capacity": {"storage": "1Gi"},
                "hostPath": {"path": str(tmp_path), "type": "Directory"},
            },
        }
    )
    wanted = claim(
        "by-hand",
        storageClassName="",
        accessModes=["ReadOnlyMany"],
        selector={"matchLabels": {"kind": "mine"}},
    )
    world.create(wanted, namespace=SPACE)
    world.create(using("hand", "by-hand", "cat /data/f"), namespace=SPACE)
    world.until_pod("hand", has_ended, namespace=SPACE)

    assert world.log("hand", SPACE) == "by hand\n"
    path = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims/by-hand"
    assert world.must("GET", path)["status"]["capacity"] == {"storage": "1Gi"}
    world.delete(pod_path("hand", SPACE), gracePeriodSeconds=0)
    world.delete(path)
    volume = "/api/v1/persistentvolumes/by-hand"
    until(lambda: world.must("GET", volume)["status"]["phase"] == "Released")
    world.delete(volume)
    until(lambda: world.is_gone(volume))
    assert (tmp_path / "f").exists()


def test_a_volume_in_use_stays_and_a_lost_one_is_told(world):
    volume = "/api/v1/persistentvolumes/lost"
    world.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "lost"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
                "hostPath": {"path": "/nowhere"},
            },
        }
    )
    wanted = claim("loses", storageClassName="", volumeName="lost")
    world.create(wanted, namespace=SPACE)
    path = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims/loses"
    until(lambda: world.must("GET", path)["status"]["phase"] == "Bound")

    world.delete(volume)
    finalizers = world.must("GET", volume)["metadata"]["finalizers"]
    world.patch(volume, {"metadata": {"finalizers": None}})

    assert finalizers == ["kubernetes.io/pv-protection"]
    until(lambda: world.must("GET", path)["status"]["phase"] == "Lost")
    world.until_event(
        "loses", "Warning ClaimLost Bound claim has lost its", namespace=SPACE
    )


def test_a_retained_volume_keeps_its_data(world, instance):
    world.create(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "kept-at-once"},
            "provisioner": "podyard.dev/local-path",
            "reclaimPolicy": "Retain",
        }
    )
    world.create(claim("held", storageClassName="kept-at-once"), namespace=SPACE)
    path = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims/held"
    bound = until(
        lambda: next(
            (
                one
                for one in [world.must("GET", path)]
                if one["status"]["phase"] == "Bound"
            ),
            None,
        )
    )
    volume = f"/api/v1/persistentvolumes/{bound['spec']['volumeName']}"
    world.create(using("holder", "held", "echo x > /data/f"), namespace=SPACE)
    world.until_pod("holder", has_ended, namespace=SPACE)
    world.delete(pod_path("holder", SPACE), gracePeriodSeconds=0)
    world.delete(path)

    until(lambda: world.must("GET", volume)["status"]["phase"] == "Released")
    world.delete(volume)
    until(lambda: world.is_gone(volume))
    uid = bound["metadata"]["uid"]
    kept = instance.data_dir / "volumes" / SPACE / f"held-{uid}"
    assert (kept / "f").read_text() == "x\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("nowhere", 'persistentvolumeclaim "nowhere" not found', id="none"),
        pytest.param(
            "unbound", "pod has unbound immediate PersistentVolumeClaims", id="unbound"
        ),
    ],
)
def test_a_pod_waits_for_its_claim(world, name, why):
    if name == "unbound":
        world.create(claim("unbound", storageClassName=""), namespace=SPACE)
        world.until_event(
            "unbound",
            "Normal FailedBinding no persistent volumes available for this claim and no "
            "storage class is set",
            namespace=SPACE,
        )
    world.create(using(f"waits-{name}", name, "true"), namespace=SPACE)

    world.until_event(
        f"waits-{name}",
        f"Warning FailedScheduling 0/1 nodes are available: {why}. preemption:",
        namespace=SPACE,
    )
    world.delete(pod_path(f"waits-{name}", SPACE), gracePeriodSeconds=0)
