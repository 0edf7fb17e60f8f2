"""Volumes of Pods: made ready, refreshed, taken down; on real mounts."""

import asyncio
import base64
import os
import stat
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.errors import forbidden
from podyard.api.runtime import EnvVar, Mount, MountPropagation
from podyard.api.scheme import CONFIG_MAP, SECRET
from podyard.client.referenced import ReferencedObjectError
from podyard.lib.clock import SystemClock
from podyard.lib.linux import (
    MNT_DETACH,
    mount_of,
    openat2,
    read_mounts,
    unmount,
)
from podyard.node.volumes.manager import VolumeManager
from podyard.node.volumes.mounts import ensure_shared, release_shared
from podyard.node.volumes.parts import VolumeError, VolumeServices
from podyard.node.volumes.tokens import TokenManager

pytestmark = pytest.mark.integration


class Objects:
    """ConfigMaps and Secrets in memory, every Pod referring to all of them."""

    def __init__(self):
        self.found: dict[tuple[str, str], Document] = {}
        self.listeners = []
        self.uids: frozenset[str] = frozenset()
        self.fault = ""

    async def get(self, kind, namespace, name):
        if self.fault:
            raise ReferencedObjectError(self.fault)
        return self.found.get((kind.kind, name))

    def pods_of(self, kind, namespace, name):
        return self.uids

    def on_change(self, listener):
        self.listeners.append(listener)

    def put(self, kind, name, **data):
        texts = data
        if kind is SECRET:
            texts = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        self.found[kind.kind, name] = {"metadata": {"name": name}, "data": texts}
        for listener in self.listeners:
            listener(kind, "ns", name)


@dataclass
class TokenApi:
    """The one call of the API that tokens need."""

    life_s: float = 3600.0
    requests: list[Document] = field(default_factory=list)
    error: Exception | None = None

    async def create_subresource(self, kind, name, subresource, document, namespace=""):
        if self.error:
            raise self.error
        self.requests.append(document)
        ends_at = SystemClock().now() + timedelta(seconds=self.life_s)
        status = {
            "token": f"token-{len(self.requests)}",
            "expirationTimestamp": ends_at.isoformat(),
        }
        return {"status": status}


@dataclass
class Heard:
    events: list[tuple[str, str]] = field(default_factory=list)

    def event(self, document, event_type, reason, message, *, field_path=""):
        self.events.append((reason, message))


@dataclass
class Bench:
    manager: VolumeManager
    objects: Objects
    api: TokenApi
    heard: Heard
    pods_dir: Path

    def make_pod(self, *volumes, mounts=(), labels=None, **spec):
        container = {"name": "c", "volumeMounts": list(mounts)}
        pod = Pod.of(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "p",
                    "namespace": "ns",
                    "uid": "u-1",
                    "labels": labels or {},
                },
                "spec": {"containers": [container], "volumes": list(volumes)} | spec,
            }
        )
        self.objects.uids = frozenset({pod.uid})
        return pod

    async def mount_one(self, source, **spec):
        """Mount a Pod with one volume and return where that is."""
        pod = self.make_pod({"name": "v"} | source, **spec)
        mounted = await self.manager.mount_pod(pod)
        return Path(mounted["v"].host_path)

    async def mounts_of(self, pod, env=()):
        volumes = await self.manager.mount_pod(pod)
        container = pod.spec.containers[0]
        return await self.manager.build_mounts(pod, container, volumes, env, ())

    def restarted(self):
        """Return another manager over the same disk, knowing nothing."""
        return make_manager(self.pods_dir, self.objects, self.api, self.heard)


def make_manager(pods_dir, objects, api, heard, **options):
    clock = SystemClock()
    services = VolumeServices(
        objects,
        TokenManager(api, clock),
        lambda: {"memory": "1Gi", "cpu": "2"},
        volumes_dir=pods_dir.parent / "volumes",
    )
    return VolumeManager(pods_dir, services, heard, clock, **options)


@pytest.fixture
async def bench(tmp_path):
    pods_dir = tmp_path / "pods"
    pods_dir.mkdir()
    objects, api, heard = Objects(), TokenApi(), Heard()
    manager = make_manager(pods_dir, objects, api, heard)
    yield Bench(manager, objects, api, heard, pods_dir)
    for uid in manager.known_uids():
        await manager.unmount_pod(uid)
    assert read_mounts(pods_dir) == []


@asynccontextmanager
async def running(manager):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(manager.run())
        yield
        task.cancel()


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def fails(work: Awaitable[object]) -> str:
    with pytest.raises(VolumeError) as caught:
        await work
    assert caught.value.reason == "FailedMount"
    return caught.value.message


async def test_an_empty_dir_is_anybodys_and_kept_over_restarts(bench):
    path = await bench.mount_one({"emptyDir": {}})

    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert path == bench.manager.empty_dir("u-1", "v")
    (path / "data").write_text("x")
    again = await bench.restarted().mount_pod(
        bench.make_pod({"name": "v", "emptyDir": {}})
    )
    assert (Path(again["v"].host_path) / "data").read_text() == "x"
    assert not again["v"].read_only


async def test_an_empty_dir_belongs_to_the_fs_group(bench):
    path = await bench.mount_one({"emptyDir": {}}, securityContext={"fsGroup": 4321})

    assert path.stat().st_gid == 4321
    assert path.stat().st_mode & stat.S_ISGID


async def test_memory_volumes_are_limited_and_live_in_memory(bench):
    path = await bench.mount_one({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})

    found = mount_of(path)
    assert (found.fstype, found.mount_point) == ("tmpfs", str(path))
    (path / "fits").write_bytes(b"x" * 900_000)
    with pytest.raises(OSError, match="No space"):
        (path / "more").write_bytes(b"x" * 900_000)
    await bench.restarted().mount_pod(
        bench.make_pod({"name": "v", "emptyDir": {"medium": "Memory"}})
    )
    assert len(read_mounts(path)) == 1


async def test_memory_volumes_without_a_limit_take_what_the_node_has(bench):
    path = await bench.mount_one({"emptyDir": {"medium": "Memory"}})

    info = os.statvfs(path)
    assert info.f_blocks * info.f_frsize == 1 << 30


@pytest.mark.parametrize(
    ("kind", "make", "called"),
    [
        ("Directory", None, "directory"),
        ("Directory", Path.touch, "directory"),
        ("DirectoryOrCreate", Path.touch, "directory"),
        ("File", None, "file"),
        ("File", Path.mkdir, "file"),
        ("FileOrCreate", Path.mkdir, "file"),
        ("Socket", Path.touch, "socket file"),
        ("CharDevice", Path.touch, "character device"),
        ("BlockDevice", Path.touch, "block device"),
    ],
)
async def test_host_paths_of_the_wrong_type_are_refused(
    bench, tmp_path, kind, make, called
):
    path = tmp_path / "it"
    if make:
        make(path)

    message = await fails(
        bench.mount_one({"hostPath": {"path": str(path), "type": kind}})
    )

    assert message == (
        'MountVolume.SetUp failed for volume "v" : hostPath type check failed: '
        f"{path} is not a {called}"
    )


@pytest.mark.parametrize(
    ("kind", "check"),
    [("DirectoryOrCreate", Path.is_dir), ("FileOrCreate", Path.is_file), ("", None)],
)
async def test_host_paths_are_made_where_that_is_asked(bench, tmp_path, kind, check):
    wanted = tmp_path / "new"

    path = await bench.mount_one({"hostPath": {"path": str(wanted), "type": kind}})

    assert path == wanted
    assert check(path) if check else not path.exists()


async def test_host_paths_lead_nowhere_else(bench):
    message = await fails(bench.mount_one({"hostPath": {"path": "/tmp/../etc"}}))

    assert message.endswith("invalid HostPath `/tmp/../etc`: must not contain '..'")


async def test_a_path_with_a_nul_is_not_taken_for_what_stands_before_it(
    bench, tmp_path
):
    hostile = {"path": f"{tmp_path}\0b", "type": "DirectoryOrCreate"}
    message = await fails(bench.mount_one({"hostPath": hostile}))

    assert message.endswith("holds a NUL byte")
    directory = os.open(tmp_path, os.O_PATH)
    try:
        (tmp_path / "a").mkdir()
        with pytest.raises(OSError, match="Invalid argument"):
            openat2(directory, "a\0b", os.O_PATH, 0)
    finally:
        os.close(directory)


async def test_host_paths_outlive_their_pod(bench, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/data").touch()
    await bench.mount_one({"hostPath": {"path": str(tmp_path / "host")}})

    await bench.manager.unmount_pod("u-1")

    assert (tmp_path / "host/data").exists()


async def test_a_config_map_is_on_disk_and_read_only(bench):
    bench.objects.put(CONFIG_MAP, "cm", k="v")
    pod = bench.make_pod({"name": "v", "configMap": {"name": "cm"}})

    mounted = (await bench.manager.mount_pod(pod))["v"]

    path = Path(mounted.host_path)
    assert mounted.read_only
    assert (path / "k").read_text() == "v"
    assert mount_of(path).mount_point != str(path)
    assert stat.S_IMODE((path / "k").stat().st_mode) == 0o644


async def test_a_secret_is_never_on_disk(bench):
    bench.objects.put(SECRET, "s", k="v")

    path = await bench.mount_one({"secret": {"secretName": "s", "defaultMode": 0o400}})

    assert (path / "k").read_text() == "v"
    assert mount_of(path).fstype == "tmpfs"
    assert stat.S_IMODE((path / "k").stat().st_mode) == 0o400


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"configMap": {"name": "cm"}}, 'configmap "cm" not found'),
        ({"secret": {"secretName": "s"}}, 'secret "s" not found'),
        (
            {"projected": {"sources": [{"configMap": {"name": "cm"}}]}},
            'configmap "cm" not found',
        ),
        (
            {
                "projected": {
                    "sources": [
                        {"configMap": {"name": "cm"}},
                        {"secret": {"name": "s"}},
                    ]
                }
            },
            '[configmap "cm" not found, secret "s" not found]',
        ),
        (
            {"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}},
            "projected source clusterTrustBundle is not supported on this node",
        ),
        (
            {"image": {"reference": "x"}},
            "the container runtime cannot mount images as volumes",
        ),
        (
            {"persistentVolumeClaim": {"claimName": "x"}},
            (
                "error processing PVC ns/x: failed to fetch PVC from API server: "
                'persistentvolumeclaims "x" not found'
            ),
        ),
    ],
)
async def test_what_is_missing_is_named(bench, source, why):
    message = await fails(bench.mount_one(source))

    assert message == f'MountVolume.SetUp failed for volume "v" : {why}'


async def test_optional_sources_may_be_missing(bench):
    path = await bench.mount_one(
        {
            "projected": {
                "sources": [
                    {"configMap": {"name": "cm", "optional": True}},
                    {"secret": {"name": "s", "optional": True}},
                    {"clusterTrustBundle": {"path": "x", "optional": True}},
                ]
            }
        }
    )

    assert [p.name for p in path.iterdir() if not p.name.startswith("..")] == []


async def test_an_api_that_cannot_be_asked_is_a_fault(bench):
    bench.objects.fault = "failed to sync configmap cache: gone"

    message = await fails(bench.mount_one({"configMap": {"name": "cm"}}))

    assert message.endswith(" : failed to sync configmap cache: gone")


async def test_the_first_fault_is_raised_and_the_others_are_told(bench):
    bench.objects.put(CONFIG_MAP, "good", k="v")
    pod = bench.make_pod(
        {"name": "a", "configMap": {"name": "none"}},
        {"name": "b", "secret": {"secretName": "none"}},
        {"name": "c", "configMap": {"name": "good"}},
    )

    message = await fails(bench.manager.mount_pod(pod))

    assert 'volume "a"' in message
    assert [('volume "b"' in told) for _, told in bench.heard.events] == [True]


API_ACCESS = {
    "name": "kube-api-access-x",
    "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    },
}


def put_root_ca(bench):
    bench.objects.found["ConfigMap", "kube-root-ca.crt"] = {"data": {"ca.crt": "CA"}}


async def test_access_to_the_api_costs_one_token_request(bench):
    put_root_ca(bench)
    pod = bench.make_pod(API_ACCESS, serviceAccountName="robot")

    mounted = await bench.manager.mount_pod(pod)
    await bench.manager.mount_pod(pod)

    path = Path(mounted["kube-api-access-x"].host_path)
    shown = {p.name: p.read_text() for p in path.iterdir() if p.is_file()}
    assert shown == {"token": "token-1", "ca.crt": "CA", "namespace": "ns"}
    assert [r["spec"] for r in bench.api.requests] == [
        {
            "audiences": [],
            "expirationSeconds": 3607,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": "p",
                "uid": "u-1",
            },
        }
    ]


async def test_a_token_is_its_groups_alone(bench):
    put_root_ca(bench)
    pod = bench.make_pod(API_ACCESS, securityContext={"fsGroup": 4321})

    mounted = await bench.manager.mount_pod(pod)

    info = (Path(mounted["kube-api-access-x"].host_path) / "token").stat()
    assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (4321, 0o640)


async def test_a_refused_token_is_a_fault(bench):
    put_root_ca(bench)
    bench.api.error = forbidden("", "serviceaccounts", "default", "no")

    message = await fails(bench.manager.mount_pod(bench.make_pod(API_ACCESS)))

    assert message.endswith(
        ' : failed to fetch token: serviceaccounts "default" is forbidden: no'
    )


async def test_tokens_are_renewed_before_they_end(bench):
    put_root_ca(bench)
    bench.api.life_s = 1.0
    async with running(bench.manager):
        mounted = await bench.manager.mount_pod(bench.make_pod(API_ACCESS))
        token = Path(mounted["kube-api-access-x"].host_path) / "token"
        assert token.read_text() == "token-1"

        await until(lambda: token.read_text() == "token-2")


async def test_changes_reach_mounted_volumes_at_once(bench):
    bench.objects.put(CONFIG_MAP, "cm", k="1")
    bench.objects.put(SECRET, "s", k="1")
    pod = bench.make_pod(
        {"name": "c", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s"}},
    )
    async with running(bench.manager):
        mounted = await bench.manager.mount_pod(pod)
        for kind, name in ((CONFIG_MAP, "cm"), (SECRET, "s")):
            bench.objects.put(kind, name, k="2", new="x")
        for name in ("c", "s"):
            path = Path(mounted[name].host_path)
            await until(lambda path=path: (path / "k").read_text() == "2")
            assert (path / "new").read_text() == "x"


async def test_labels_reach_the_downward_api_at_the_next_sync(bench):
    volume = {
        "name": "v",
        "downwardAPI": {
            "items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]
        },
    }
    mounted = await bench.manager.mount_pod(bench.make_pod(volume, labels={"a": "1"}))
    path = Path(mounted["v"].host_path) / "l"
    assert path.read_text() == 'a="1"'

    await bench.manager.mount_pod(bench.make_pod(volume, labels={"a": "2"}))

    assert path.read_text() == 'a="2"'


async def test_a_source_that_goes_leaves_its_volume_as_it_was(bench):
    bench.objects.put(CONFIG_MAP, "cm", k="v")
    pod = bench.make_pod({"name": "v", "configMap": {"name": "cm"}})
    await bench.manager.mount_pod(pod)
    bench.objects.found.clear()

    for manager in (bench.manager, bench.restarted()):
        mounted = await manager.mount_pod(pod)
        assert (Path(mounted["v"].host_path) / "k").read_text() == "v"

    assert bench.heard.events == 2 * [
        (
            "FailedMount",
            'MountVolume.SetUp failed for volume "v" : configmap "cm" not found',
        )
    ]


async def test_unmounting_leaves_nothing(bench):
    bench.objects.put(SECRET, "s", k="v")
    pod = bench.make_pod(
        {"name": "v", "secret": {"secretName": "s"}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "d", "emptyDir": {}},
        mounts=[{"name": "d", "mountPath": "/x", "subPath": "a/b"}],
    )
    await bench.mounts_of(pod)
    assert bench.manager.known_uids() == {"u-1"}

    await bench.restarted().unmount_pod("u-1")
    await bench.manager.unmount_pod("u-1")
    await bench.manager.unmount_pod("never-was")

    assert read_mounts(bench.pods_dir) == []
    assert bench.manager.known_uids() == frozenset()
    assert list((bench.pods_dir / "u-1").iterdir()) == []


@pytest.mark.parametrize("uid", ["../x", "", "a/b", ".."])
async def test_a_uid_that_is_none_leads_nowhere(bench, uid):
    with pytest.raises(VolumeError):
        await bench.manager.unmount_pod(uid)


EMPTY = {"name": "v", "emptyDir": {}}


async def test_mounts_come_in_spec_order_and_others_after(bench):
    bench.objects.put(CONFIG_MAP, "cm", k="v")
    pod = bench.make_pod(
        EMPTY,
        {"name": "c", "configMap": {"name": "cm"}},
        mounts=[
            {"name": "c", "mountPath": "/c"},
            {"name": "v", "mountPath": "rel", "readOnly": True},
            {"name": "v", "mountPath": "/w"},
        ],
    )
    volumes = await bench.manager.mount_pod(pod)
    extra = Mount("/etc/hosts", "/h")

    mounts = await bench.manager.build_mounts(
        pod, pod.spec.containers[0], volumes, (), (), extra=(extra,)
    )

    assert [(m.container_path, m.readonly) for m in mounts] == [
        ("/c", True),
        ("/rel", True),
        ("/w", False),
        ("/etc/hosts", False),
    ]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (
            {"name": "x"},
            'cannot find volume "x" to mount into container "c"',
        ),
        ({"subPath": "/abs"}, "error SubPath `/abs` must not be an absolute path"),
        (
            {"subPath": "a/../b"},
            "unable to provision SubPath `a/../b`: must not contain '..'",
        ),
        ({"subPathExpr": "$(A)/$(NO)/$(EMPTY)"}, "missing value for NO, EMPTY"),
        (
            {"subPathExpr": "$(UP)"},
            "unable to provision SubPath `..`: must not contain '..'",
        ),
        (
            {"subPath": "a\0b"},
            "unable to provision SubPath 'a\\x00b': holds a NUL byte",
        ),
        (
            {"subPath": "evil/x"},
            'failed to prepare subPath for volumeMount "v" of container "c"',
        ),
        (
            {"readOnly": True, "recursiveReadOnly": "Enabled"},
            (
                'volume "v" requested recursive read-only mode, but it is not supported '
                "by the runtime"
            ),
        ),
        ({"mountPropagation": "Sideways"}, 'invalid MountPropagation mode: "Sideways"'),
    ],
)
async def test_mounts_that_cannot_be_are_refused(bench, mount, message):
    pod = bench.make_pod(EMPTY, mounts=[{"name": "v", "mountPath": "/x"} | mount])
    await bench.manager.mount_pod(pod)
    (bench.manager.empty_dir("u-1", "v") / "evil").symlink_to("/etc")
    env = [EnvVar("A", b"a"), EnvVar("EMPTY", b""), EnvVar("UP", b"..")]

    assert await fails(bench.mounts_of(pod, env)) == message


async def test_sub_paths_are_bound_and_expanded(bench):
    pod = bench.make_pod(
        EMPTY, mounts=[{"name": "v", "mountPath": "/x", "subPathExpr": "$(A)/b"}]
    )

    mounts = await bench.mounts_of(pod, [EnvVar("A", b"logs")])

    path = bench.pods_dir / "u-1/volume-subpaths/v/c/0"
    assert mounts[0].host_path == str(path)
    (path / "f").touch()
    assert (bench.manager.empty_dir("u-1", "v") / "logs/b/f").exists()


async def test_recursive_read_only_follows_the_runtime(bench):
    pod = bench.make_pod(
        EMPTY,
        mounts=[
            {
                "name": "v",
                "mountPath": "/x",
                "readOnly": True,
                "recursiveReadOnly": "IfPossible",
            }
        ],
    )
    able = make_manager(
        bench.pods_dir,
        bench.objects,
        bench.api,
        bench.heard,
        recursive_read_only=lambda _pod: True,
    )

    for manager, expected in ((bench.manager, False), (able, True)):
        volumes = await manager.mount_pod(pod)
        mounts = await manager.build_mounts(
            pod, pod.spec.containers[0], volumes, (), ()
        )
        assert mounts[0].recursive_read_only is expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("HostToContainer", MountPropagation.HOST_TO_CONTAINER),
        ("Bidirectional", MountPropagation.BIDIRECTIONAL),
    ],
)
async def test_propagation_needs_a_shared_mount(bench, asked, expected):
    pod = bench.make_pod(
        EMPTY, mounts=[{"name": "v", "mountPath": "/x", "mountPropagation": asked}]
    )
    if not mount_of(bench.pods_dir).shared:
        message = await fails(bench.mounts_of(pod))
        assert message.startswith(f'volume "v" asks for mountPropagation {asked}, but ')

    made = ensure_shared(bench.pods_dir)
    try:
        assert ensure_shared(bench.pods_dir) is made
        mounts = await bench.mounts_of(pod)
        assert mounts[0].propagation is expected
        await bench.manager.unmount_pod("u-1")
    finally:
        release_shared(bench.pods_dir)
        release_shared(bench.pods_dir)
    assert read_mounts(bench.pods_dir) == []


async def test_what_a_container_mounts_in_a_shared_volume_is_seen_and_taken_down(bench):
    ensure_shared(bench.pods_dir)
    try:
        path = await bench.mount_one({"emptyDir": {}})
        (path / "m").mkdir()
        subprocess.run(
            [
                "unshare",
                "-m",
                "--propagation",
                "unchanged",
                "mount",
                "-t",
                "tmpfs",
                "t",
                str(path / "m"),
            ],
            check=True,
        )
        assert mount_of(path / "m").fstype == "tmpfs"

        await bench.manager.unmount_pod("u-1")

        assert [m.mount_point for m in read_mounts(bench.pods_dir)] == [
            str(bench.pods_dir)
        ]
    finally:
        with suppress(OSError):
            unmount(bench.pods_dir, MNT_DETACH)
