"""Our types and CRI's messages say the same."""

from datetime import UTC, datetime

import orjson
import pytest

from podyard.api.observed import ContainerState, RuntimeHandler, SandboxState
from podyard.api.runtime import (
    Capabilities,
    ContainerConfig,
    ContainerSecurity,
    DNSConfig,
    EnvVar,
    IdMapping,
    ImageAuth,
    LinuxResources,
    Mount,
    MountPropagation,
    NamespaceMode,
    NamespaceOptions,
    PortMapping,
    ProfileType,
    SandboxConfig,
    SandboxSecurity,
    SecurityProfile,
    SupplementalGroupsPolicy,
    UserNamespace,
)
from podyard.cri import convert
from podyard.cri.proto import podyard_cri_pb2 as pb


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        pytest.param(0, None, id="zero-is-not-yet"),
        pytest.param(-5, None, id="negative-is-not-yet"),
        pytest.param(
            1_700_000_000_123_456_789,
            datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC),
            id="microseconds-are-kept",
        ),
    ],
)
def test_nanoseconds_become_aware_times(nanoseconds, expected):
    assert convert.to_datetime(nanoseconds) == expected


def test_environment_values_travel_as_bytes():
    config = ContainerConfig(
        name="c", attempt=0, image="i", envs=(EnvVar("A", b"\xff\x00"),)
    )

    wire = convert.to_container_config(config).SerializeToString()

    assert pb.ContainerConfig.FromString(wire).envs[0].value == b"\xff\x00"


def test_sandbox_config_keeps_everything():
    config = SandboxConfig(
        name="web",
        namespace="default",
        uid="u1",
        attempt=2,
        hostname="web",
        log_directory="/logs",
        dns=DNSConfig(("10.0.0.1",), ("svc",), ("ndots:5",)),
        port_mappings=(PortMapping("UDP", 53, 5353, "127.0.0.1"),),
        labels={"a": "b"},
        annotations={"c": "d"},
        cgroup_parent="/pods/u1",
        sysctls={"net.ipv4.ip_local_port_range": "1024 65535"},
        security=SandboxSecurity(
            namespaces=NamespaceOptions(
                network=NamespaceMode.NODE,
                pid=NamespaceMode.POD,
                userns=UserNamespace(
                    (IdMapping(1000, 0, 10),), (IdMapping(2000, 0, 20),)
                ),
            ),
            run_as_user=0,
            supplemental_groups=(5, 6),
            supplemental_groups_policy=SupplementalGroupsPolicy.STRICT,
            seccomp=SecurityProfile(ProfileType.LOCALHOST, "/p.json"),
        ),
        resources=LinuxResources(cpu_shares=512),
    )

    wire = convert.to_sandbox_config(config)

    assert (wire.metadata.name, wire.metadata.attempt) == ("web", 2)
    assert wire.dns_config.options == ["ndots:5"]
    assert wire.port_mappings[0].protocol == pb.Protocol.UDP
    assert wire.port_mappings[0].host_ip == "127.0.0.1"
    assert wire.linux.cgroup_parent == "/pods/u1"
    assert wire.linux.resources.cpu_shares == 512
    assert not wire.linux.HasField("overhead")
    security = wire.linux.security_context
    assert security.HasField("run_as_user")
    assert security.run_as_user.value == 0
    assert not security.HasField("run_as_group")
    assert security.supplemental_groups_policy == pb.SupplementalGroupsPolicy.Strict
    assert security.seccomp.localhost_ref == "/p.json"
    assert security.namespace_options.network == pb.NamespaceMode.NODE
    assert security.namespace_options.userns_options.gids[0].host_id == 2000


def test_container_config_keeps_everything():
    config = ContainerConfig(
        name="main",
        attempt=3,
        image="sha256:1",
        user_specified_image="web:1",
        command=("sh",),
        args=("-c", "true"),
        mounts=(
            Mount(
                "/data",
                "/host",
                readonly=True,
                propagation=MountPropagation.BIDIRECTIONAL,
            ),
            Mount("/img", image="sha256:2", image_sub_path="etc"),
        ),
        security=ContainerSecurity(
            capabilities=Capabilities(add=("NET_ADMIN",), drop=("ALL",)),
            run_as_user=1000,
            run_as_group=2000,
            no_new_privs=True,
            masked_paths=("/proc/keys",),
            apparmor=SecurityProfile(ProfileType.LOCALHOST, "mine"),
        ),
        resources=LinuxResources(
            memory_limit_bytes=1 << 20,
            cpu_quota_us=-1,
            hugepage_limits=(("2MB", 4),),
            unified={"memory.high": "1"},
        ),
        stop_signal="SIGRTMIN+3",
    )

    wire = convert.to_container_config(config)

    assert wire.image.user_specified_image == "web:1"
    assert wire.mounts[0].propagation == pb.MountPropagation.PROPAGATION_BIDIRECTIONAL
    assert not wire.mounts[0].HasField("image")
    assert (wire.mounts[1].image.image, wire.mounts[1].image_sub_path) == (
        "sha256:2",
        "etc",
    )
    security = wire.linux.security_context
    assert security.capabilities.add_capabilities == ["NET_ADMIN"]
    assert security.run_as_group.value == 2000
    assert security.apparmor_profile == "localhost/mine"
    assert security.masked_paths == ["/proc/keys"]
    assert wire.linux.resources.cpu_quota == -1
    assert wire.linux.resources.hugepage_limits[0].limit == 4
    assert wire.stop_signal == pb.Signal.SIGNAL_SIGRTMINPLUS3


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        pytest.param(None, "", id="none"),
        pytest.param(
            SecurityProfile(ProfileType.RUNTIME_DEFAULT),
            "runtime/default",
            id="default",
        ),
        pytest.param(
            SecurityProfile(ProfileType.UNCONFINED), "unconfined", id="unconfined"
        ),
    ],
)
def test_old_runtimes_read_apparmor_as_text(profile, expected):
    config = ContainerConfig(
        name="c", attempt=0, image="i", security=ContainerSecurity(apparmor=profile)
    )

    wire = convert.to_container_config(config)

    assert wire.linux.security_context.apparmor_profile == expected


@pytest.mark.parametrize(
    ("name", "number"),
    [("", 0), ("SIGTERM", 23), ("SIGUSR1", 29), ("SIGRTMAX-2", 63)],
)
def test_signal_numbers_are_cris_not_the_kernels(name, number):
    config = ContainerConfig(name="c", attempt=0, image="i", stop_signal=name)

    assert convert.to_container_config(config).stop_signal == number


def test_unknown_signal_is_refused():
    config = ContainerConfig(name="c", attempt=0, image="i", stop_signal="SIGNOPE")

    with pytest.raises(ValueError, match="SIGNOPE"):
        convert.to_container_config(config)


def test_every_cri_signal_can_be_named():
    names = pb.Signal.keys()
    for name in names:
        ours = name.removeprefix("SIGNAL_")
        ours = (
            ""
            if ours == "RUNTIME_DEFAULT"
            else ours.replace("PLUS", "+").replace("MINUS", "-")
        )
        config = ContainerConfig(name="c", attempt=0, image="i", stop_signal=ours)
        assert pb.Signal.Name(convert.to_container_config(config).stop_signal) == name


def test_sandbox_status_has_every_address():
    wire = pb.PodSandboxStatus(
        id="s",
        metadata=pb.PodSandboxMetadata(name="p", uid="u", namespace="n"),
        state=pb.PodSandboxState.SANDBOX_NOTREADY,
        network=pb.PodSandboxNetworkStatus(
            ip="10.0.0.2", additional_ips=[pb.PodIP(ip="fd00::2")]
        ),
    )

    sandbox = convert.from_sandbox_status(wire)

    assert sandbox.ips == ("10.0.0.2", "fd00::2")
    assert sandbox.state is SandboxState.NOT_READY


def test_container_never_ends_before_it_began():
    wire = pb.ContainerStatus(
        id="c",
        state=pb.ContainerState.CONTAINER_EXITED,
        created_at=1_000_000_000,
        started_at=3_000_000_000,
        finished_at=2_000_000_000,
        exit_code=1,
    )

    status = convert.from_container_status(wire, sandbox_id="s")

    assert status.state is ContainerState.EXITED
    assert status.finished_at == status.started_at


def test_running_container_has_no_end():
    wire = pb.ContainerStatus(id="c", started_at=3_000_000_000)

    assert convert.from_container_status(wire, sandbox_id="s").finished_at is None


def test_image_user_zero_is_not_no_user():
    zero = pb.Image(id="i", uid=pb.Int64Value(value=0))
    named = pb.Image(id="i", username="www")

    assert convert.from_image(zero).user == 0
    assert convert.from_image(named).user is None
    assert convert.from_image(named).username == "www"


def test_stats_the_runtime_left_out_are_none():
    wire = pb.ContainerStats(
        attributes=pb.ContainerAttributes(
            id="c", labels={"io.kubernetes.pod.uid": "u"}
        ),
        cpu=pb.CpuUsage(
            timestamp=5_000_000_000, usage_core_nano_seconds=pb.UInt64Value(value=7)
        ),
    )

    stats = convert.from_stats(wire)

    assert stats.cpu_usage_core_ns == 7
    assert stats.memory_rss_bytes is None
    assert stats.rootfs_used_bytes is None
    assert stats.pod_uid == "u"
    assert stats.at == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)


CONTAINERD = {
    "containerd": {
        "defaultRuntimeName": "runc",
        "runtimes": {
            "runc": {"options": {"SystemdCgroup": True}},
            "crun": {"options": None},
        },
    }
}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        pytest.param(
            {"config": orjson.dumps(CONTAINERD).decode()},
            (
                (RuntimeHandler(""), RuntimeHandler("crun"), RuntimeHandler("runc")),
                "systemd",
            ),
            id="containerd",
        ),
        pytest.param({}, ((), ""), id="nothing-told"),
        pytest.param({"config": "not json"}, ((), ""), id="no-json"),
        pytest.param({"config": "[]"}, ((), ""), id="another-shape"),
        pytest.param(
            {"config": '{"containerd": {"runtimes": {}}}'}, ((), ""), id="no-default"
        ),
    ],
)
def test_handlers_are_read_from_the_verbose_status(info, expected):
    assert convert.runtime_info(info) == expected


def test_handlers_that_cri_tells_come_first():
    response = pb.StatusResponse(
        runtime_handlers=[
            pb.RuntimeHandler(
                name="", features=pb.RuntimeHandlerFeatures(user_namespaces=True)
            )
        ],
        features=pb.RuntimeFeatures(supplemental_groups_policy=True),
    )

    status = convert.from_status(
        response, known_handlers=(RuntimeHandler("old"),), cgroup_driver="cgroupfs"
    )

    assert status.handlers == (RuntimeHandler("", user_namespaces=True),)
    assert status.supplemental_groups_policy
    assert status.cgroup_driver == "cgroupfs"


def test_credentials_do_not_show_in_a_message_dump():
    auth = convert.to_auth(
        ImageAuth(username="me", password="hunter2", auth="aHVudGVyMg==")
    )

    assert auth is not None
    assert auth.password == "hunter2"
    assert "hunter2" not in repr(ImageAuth(username="me", password="hunter2"))
