"""Files of volumes as data: keys, items, modes, faults."""

import base64

import pytest

from podyard.api.core_v1 import Pod, Volume
from podyard.node.volumes.build import (
    FileProjection,
    PayloadError,
    check_key,
    check_path,
    config_map_files,
    downward_files,
    fingerprint,
    hugepage_size,
    memory_volume_bytes,
    secret_files,
    sole_user,
    token_file,
)
from podyard.node.volumes.manager import load_volume_plugins


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def make_pod(*containers, **spec):
    return Pod.of(
        {
            "metadata": {
                "name": "web",
                "namespace": "ns",
                "uid": "u",
                "labels": {"b": 'say "hi"', "a": "1"},
                "annotations": {"n": "x\ny"},
            },
            "spec": {"containers": list(containers) or [{"name": "c"}]} | spec,
        }
    )


CONFIG = {"data": {"a": "1", "b": "2"}, "binaryData": {"bin": b64(b"\x00\xff")}}


def config_map(document=CONFIG, *, items=None, mode=None, optional=False):
    return config_map_files(
        document, name="cm", items=items, default_mode=mode, optional=optional
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {},
            {
                "a": FileProjection(b"1"),
                "b": FileProjection(b"2"),
                "bin": FileProjection(b"\x00\xff"),
            },
            id="every-key",
        ),
        pytest.param(
            {"items": [{"key": "a", "path": "x/y"}], "mode": 0o400},
            {"x/y": FileProjection(b"1", 0o400)},
            id="item",
        ),
        pytest.param(
            {"items": [{"key": "bin", "path": "z", "mode": 0o777}], "mode": 0o400},
            {"z": FileProjection(b"\x00\xff", 0o777)},
            id="own-mode",
        ),
        pytest.param(
            {"items": [{"key": "a", "path": "a", "mode": 0}]},
            {"a": FileProjection(b"1", 0)},
            id="mode-zero",
        ),
        pytest.param(
            {"items": [{"key": "no", "path": "x"}], "optional": True},
            {},
            id="optional-key",
        ),
        pytest.param({"document": None, "optional": True}, {}, id="optional-object"),
        pytest.param({"document": {}}, {}, id="empty"),
    ],
)
def test_config_maps_become_files(options, expected):
    assert config_map(**options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"document": None}, 'configmap "cm" not found'),
        (
            {"items": [{"key": "no", "path": "x"}]},
            "configmap references non-existent config key: no",
        ),
        (
            {"items": [{"key": "a", "path": "../x"}]},
            "invalid path: must not contain '..': ../x",
        ),
        (
            {"document": {"data": {"../x": ""}}},
            "invalid key '../x': must be a valid file name",
        ),
        (
            {"document": {"data": {"..data": ""}}},
            "invalid path: must not start with '..': ..data",
        ),
    ],
    ids=["absent", "key", "path", "hostile-key", "data-link"],
)
def test_faults_of_config_maps_are_named(options, message):
    with pytest.raises(PayloadError) as caught:
        config_map(**options)

    assert str(caught.value) == message


def test_secrets_are_decoded_and_their_faults_named():
    def secret(document, items=None):
        return secret_files(
            document, name="s", items=items, default_mode=0o400, optional=False
        )

    assert secret({"data": {"k": b64(b"\xff")}}) == {
        "k": FileProjection(b"\xff", 0o400)
    }
    with pytest.raises(PayloadError, match=r'^secret "s" not found$'):
        secret(None)
    with pytest.raises(PayloadError, match=r"^references non-existent secret key: x$"):
        secret({"data": {}}, [{"key": "x", "path": "x"}])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "..",
        "../a",
        "a/../b",
        "..data",
        "..2026/x",
        "a//b",
        "a/./b",
        ".",
        "a\0b",
        "a/" + "x" * 256,
        "a/" * 2049,
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path):
    with pytest.raises(PayloadError):
        check_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", ".hidden", "a..b", "a/..b", "..." + "x"])
def test_other_paths_are_not(path):
    if path.startswith(".."):
        with pytest.raises(PayloadError):
            check_path(path)
    else:
        check_path(path)


@pytest.mark.parametrize("key", ["a/b", "", ".", "..", "x" * 254, "ü", "a\nb", "a b"])
def test_keys_that_are_no_file_names_are_refused(key):
    with pytest.raises(PayloadError):
        check_key(key)


ITEMS = [
    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}, "mode": 0o600},
    {"path": "one", "fieldRef": {"fieldPath": "metadata.labels['a']"}},
    {
        "path": "cpu",
        "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"},
    },
]


def test_the_downward_api_as_files():
    files = downward_files(
        make_pod(), ITEMS, default_mode=None, node_allocatable={"cpu": "2"}
    )

    assert files == {
        "labels": FileProjection(b'a="1"\nb="say \\"hi\\""'),
        "notes": FileProjection(b'n="x\\ny"', 0o600),
        "one": FileProjection(b"1"),
        "cpu": FileProjection(b"2"),
    }


def test_what_volumes_may_not_show_is_refused():
    items = [{"path": "x", "fieldRef": {"fieldPath": "status.podIP"}}]

    with pytest.raises(PayloadError, match=r"unsupported fieldPath: status.podIP"):
        downward_files(make_pod(), items, default_mode=None, node_allocatable={})


def runs_as(uid):
    return {"name": "c", "securityContext": {"runAsUser": uid}}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(make_pod(), None, id="nobody-says"),
        pytest.param(make_pod(runs_as(5)), 5, id="the-container"),
        pytest.param(make_pod(securityContext={"runAsUser": 7}), 7, id="the-pod"),
        pytest.param(make_pod(runs_as(5), runs_as(6)), None, id="they-differ"),
        pytest.param(make_pod(runs_as(5), {"name": "d"}), None, id="one-says-nothing"),
        pytest.param(make_pod(runs_as(0)), 0, id="root"),
    ],
)
def test_the_one_user_of_a_pod(pod, expected):
    assert sole_user(pod) == expected


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (make_pod(), FileProjection(b"t", 0o644)),
        (make_pod(runs_as(5)), FileProjection(b"t", 0o600, 5)),
        (make_pod(securityContext={"fsGroup": 9}), FileProjection(b"t", 0o600)),
    ],
    ids=["anybody", "user", "group"],
)
def test_tokens_are_their_readers_alone(pod, expected):
    assert token_file(pod, "t", default_mode=None) == expected


LIMITED = {"name": "c", "resources": {"limits": {"memory": "64Mi"}}}


@pytest.mark.parametrize(
    ("pod", "limit", "node", "expected"),
    [
        (make_pod(), None, None, 0),
        (make_pod(), None, "1Gi", 1 << 30),
        (make_pod(), "1Mi", "1Gi", 1 << 20),
        (make_pod(), "2Gi", "1Gi", 1 << 30),
        (make_pod(LIMITED), None, "1Gi", 64 << 20),
        (make_pod(LIMITED, {"name": "d"}), None, "1Gi", 1 << 30),
        (make_pod(LIMITED), "1Mi", "1Gi", 1 << 20),
        (make_pod(), "0", "1Gi", 1 << 30),
    ],
    ids=["none", "node", "own", "capped", "pod", "not-all", "least", "zero"],
)
def test_how_large_memory_volumes_may_grow(pod, limit, node, expected):
    assert memory_volume_bytes(pod, size_limit=limit, node_memory=node) == expected


def test_huge_page_volumes_take_the_size_the_pod_asks_for():
    pages = {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}

    assert hugepage_size(make_pod(pages), "HugePages") == "2Mi"
    assert hugepage_size(make_pod(pages), "HugePages-2Mi") == "2Mi"
    for medium in ("HugePages-1Gi", "HugePages"):
        with pytest.raises(PayloadError):
            hugepage_size(make_pod(), medium)


def test_fingerprints_tell_contents_modes_and_owners_apart():
    base = {"a": FileProjection(b"x")}
    others = [
        {"a": FileProjection(b"y")},
        {"b": FileProjection(b"x")},
        {"a": FileProjection(b"x", 0o600)},
        {"a": FileProjection(b"x", uid=5)},
        {},
    ]

    assert fingerprint(base) == fingerprint(dict(base))
    assert fingerprint(base) != fingerprint(base, salt="g")
    assert len({fingerprint(o) for o in [base, *others]}) == 6


def test_contents_show_in_no_repr():
    assert "hunter2" not in repr(FileProjection(b"hunter2"))


def test_our_volume_plugins():
    assert [plugin.name for plugin in load_volume_plugins()] == [
        "kubernetes.io/configmap",
        "kubernetes.io/downward-api",
        "kubernetes.io/empty-dir",
        "kubernetes.io/host-path",
        "kubernetes.io/image",
        "kubernetes.io/local-volume",
        "kubernetes.io/projected",
        "kubernetes.io/secret",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "configMap",
        "downwardAPI",
        "emptyDir",
        "hostPath",
        "image",
        "projected",
        "secret",
    ],
)
def test_each_volume_has_exactly_one_plugin(source):
    volume = Volume.of({"name": "v", source: {}})

    assert sum(plugin.claims(volume) for plugin in load_volume_plugins()) == 1
