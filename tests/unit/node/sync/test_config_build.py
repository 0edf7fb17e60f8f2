"""Pod and container to CRI configs, as tables."""

from typing import Any

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.observed import Image
from podyard.api.runtime import (
    DNSConfig,
    EnvVar,
    NamespaceMode,
    PortMapping,
    ProfileType,
    SecurityProfile,
    SELinuxOptions,
    SupplementalGroupsPolicy,
)
from podyard.node.sync.build import (
    MASKED_PATHS,
    READONLY_PATHS,
    BuildSettings,
    ContainerConfigError,
    ContainerParts,
    SandboxParts,
    build_container_config,
    build_sandbox_config,
    container_log_link,
    normalize_sysctl,
    stop_grace_s,
)

SETTINGS = BuildSettings("/kubelet/seccomp")
ROOT_IMAGE = Image("sha256:1")
WHERE = '(pod: "p_d(u)", container: c)'


def make_pod(
    container: Document | None = None, *, metadata: Document | None = None, **spec: Any
) -> Pod:
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u", **(metadata or {})},
            "spec": {
                "containers": [{"name": "c", "image": "i:1", **(container or {})}],
                **spec,
            },
        }
    )


def container_of(pod: Pod, image: Image = ROOT_IMAGE, **parts: Any) -> Any:
    made = ContainerParts(
        attempt=parts.pop("attempt", 0), image_ref="sha256:1", image=image, **parts
    )
    settings = parts.get("settings", SETTINGS)
    return build_container_config(pod, pod.spec.containers[0], made, settings)


def sandbox_of(pod: Pod) -> Any:
    parts = SandboxParts(2, "host", DNSConfig(("1.2.3.4",)), "/logs", "/cg")
    return build_sandbox_config(pod, parts)


def test_a_sandbox_carries_what_finds_it_again() -> None:
    pod = make_pod(
        metadata={
            "labels": {"app": "x", "io.kubernetes.pod.uid": "forged"},
            "annotations": {"k": "v"},
        }
    )

    config = sandbox_of(pod)

    assert (config.name, config.namespace, config.uid) == ("p", "d", "u")
    assert (config.attempt, config.hostname, config.log_directory) == (
        2,
        "host",
        "/logs",
    )
    assert config.labels == {
        "app": "x",
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "d",
        "io.kubernetes.pod.uid": "u",
    }
    assert config.annotations == {"k": "v", "kubernetes.io/config.source": "api"}
    assert config.security.seccomp == SecurityProfile(ProfileType.RUNTIME_DEFAULT)
    assert config.cgroup_parent == "/cg"


@pytest.mark.parametrize(
    ("spec", "network", "pid", "ipc"),
    [
        pytest.param(
            {}, NamespaceMode.POD, NamespaceMode.CONTAINER, NamespaceMode.POD, id="own"
        ),
        pytest.param(
            {"hostNetwork": True, "hostPID": True, "hostIPC": True},
            NamespaceMode.NODE,
            NamespaceMode.NODE,
            NamespaceMode.NODE,
            id="the-hosts",
        ),
        pytest.param(
            {"shareProcessNamespace": True},
            NamespaceMode.POD,
            NamespaceMode.POD,
            NamespaceMode.POD,
            id="shared-processes",
        ),
    ],
)
def test_namespaces(
    spec: Document, network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode
) -> None:
    pod = make_pod(**spec)

    for config in (sandbox_of(pod), container_of(pod)):
        options = config.security.namespaces
        assert (options.network, options.pid, options.ipc) == (network, pid, ipc)


def test_a_pod_on_the_host_network_gives_the_runtime_no_host_name() -> None:
    assert sandbox_of(make_pod(hostNetwork=True)).hostname == ""


def test_host_ports_are_told_once() -> None:
    ports = [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 81, "hostPort": 8080},
        {"containerPort": 82},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"},
    ]

    config = sandbox_of(make_pod({"ports": ports}))

    assert config.port_mappings == (
        PortMapping("TCP", 80, 8080),
        PortMapping("UDP", 53, 53),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.ipv4.tcp_syncookies", "net.ipv4.tcp_syncookies"),
        ("net/ipv4/conf/eno2.100/rp_filter", "net.ipv4.conf.eno2/100.rp_filter"),
        ("kernel", "kernel"),
    ],
)
def test_sysctls_are_told_with_dots(name: str, expected: str) -> None:
    assert normalize_sysctl(name) == expected


def test_groups_and_ids_of_the_pod_reach_sandbox_and_container() -> None:
    context = {
        "runAsUser": 1000,
        "runAsGroup": 3000,
        "fsGroup": 2000,
        "supplementalGroups": [4000, 2000],
        "supplementalGroupsPolicy": "Strict",
        "seLinuxOptions": {"level": "s0:c1"},
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
    }
    pod = make_pod(securityContext=context)

    assert sandbox_of(pod).sysctls == {"net.ipv4.ip_unprivileged_port_start": "0"}
    for config in (sandbox_of(pod), container_of(pod)):
        security = config.security
        assert (security.run_as_user, security.run_as_group) == (1000, 3000)
        assert security.supplemental_groups == (2000, 4000)
        policy = security.supplemental_groups_policy
        assert policy is SupplementalGroupsPolicy.STRICT
        assert security.selinux == SELinuxOptions(level="s0:c1")


def test_a_container_overrides_its_pod_field_by_field() -> None:
    pod = make_pod(
        {"securityContext": {"runAsUser": 5, "seLinuxOptions": {"type": "t"}}},
        securityContext={"runAsUser": 1000, "runAsGroup": 3000},
    )

    security = container_of(pod).security

    assert (security.run_as_user, security.run_as_group) == (5, 3000)
    assert security.selinux == SELinuxOptions(type="t")


@pytest.mark.parametrize(
    ("image", "user", "username"),
    [
        pytest.param(ROOT_IMAGE, 0, "", id="nobody-says-so-root"),
        pytest.param(Image("i", user=7), 7, "", id="number-of-the-image"),
        pytest.param(Image("i", username="www"), None, "www", id="name-of-the-image"),
    ],
)
def test_the_images_user_counts_where_no_other_is_wanted(
    image: Image, user: int | None, username: str
) -> None:
    security = container_of(make_pod(), image).security

    assert (security.run_as_user, security.run_as_username) == (user, username)


@pytest.mark.parametrize(
    ("context", "image", "error"),
    [
        pytest.param(
            {"runAsUser": 0},
            ROOT_IMAGE,
            f"container's runAsUser breaks non-root policy {WHERE}",
            id="root-wanted",
        ),
        pytest.param(
            {},
            Image("i", user=0),
            f"container has runAsNonRoot and image will run as root {WHERE}",
            id="image-runs-as-root",
        ),
        pytest.param(
            {},
            ROOT_IMAGE,
            f"container has runAsNonRoot and image will run as root {WHERE}",
            id="image-says-nothing",
        ),
        pytest.param(
            {},
            Image("i", username="www"),
            "container has runAsNonRoot and image has non-numeric user (www), cannot "
            f"verify user is non-root {WHERE}",
            id="image-has-a-name",
        ),
        pytest.param({"runAsUser": 5}, ROOT_IMAGE, None, id="another-user-wanted"),
        pytest.param({}, Image("i", user=7), None, id="image-has-another-user"),
    ],
)
def test_run_as_non_root(context: Document, image: Image, error: str | None) -> None:
    pod = make_pod({"securityContext": {"runAsNonRoot": True, **context}})

    if error is None:
        container_of(pod, image)
        return
    with pytest.raises(ContainerConfigError) as refused:
        container_of(pod, image)
    assert refused.value.message == error


@pytest.mark.parametrize(
    ("pod_profile", "own_profile", "expected"),
    [
        pytest.param(
            None, None, SecurityProfile(ProfileType.UNCONFINED), id="none-is-unconfined"
        ),
        pytest.param(
            {"type": "RuntimeDefault"},
            None,
            SecurityProfile(ProfileType.RUNTIME_DEFAULT),
            id="the-pods",
        ),
        pytest.param(
            {"type": "RuntimeDefault"},
            {"type": "Unconfined"},
            SecurityProfile(ProfileType.UNCONFINED),
            id="its-own-first",
        ),
        pytest.param(
            None,
            {"type": "Localhost", "localhostProfile": "p/x.json"},
            SecurityProfile(ProfileType.LOCALHOST, "/kubelet/seccomp/p/x.json"),
            id="a-file",
        ),
    ],
)
def test_seccomp(
    pod_profile: Document | None, own_profile: Document | None, expected: Any
) -> None:
    pod = make_pod(
        {"securityContext": {"seccompProfile": own_profile} if own_profile else {}},
        securityContext={"seccompProfile": pod_profile} if pod_profile else {},
    )

    assert container_of(pod).security.seccomp == expected


def test_seccomp_may_be_on_by_default() -> None:
    settings = BuildSettings("/s", seccomp_default=True)
    pod = make_pod()
    parts = ContainerParts(0, "r", ROOT_IMAGE)

    config = build_container_config(pod, pod.spec.containers[0], parts, settings)

    assert config.security.seccomp == SecurityProfile(ProfileType.RUNTIME_DEFAULT)


def test_what_a_container_alone_may_say() -> None:
    context = {
        "privileged": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "procMount": "Unmasked",
        "appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"},
    }
    pod = make_pod({"securityContext": context})

    security = container_of(pod).security

    assert security.privileged
    assert sandbox_of(pod).security.privileged
    assert security.readonly_rootfs
    assert security.no_new_privs
    assert (security.capabilities.add, security.capabilities.drop) == (
        ("NET_ADMIN",),
        ("ALL",),
    )
    assert (security.masked_paths, security.readonly_paths) == ((), ())
    assert security.apparmor == SecurityProfile(ProfileType.LOCALHOST, "mine")


def test_proc_is_masked_by_default() -> None:
    security = container_of(make_pod()).security

    assert security.masked_paths == MASKED_PATHS
    assert security.readonly_paths == READONLY_PATHS
    assert not security.no_new_privs


def test_an_ephemeral_container_looks_at_its_target() -> None:
    pod = Pod.of(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {
                "containers": [{"name": "c", "image": "i"}],
                "ephemeralContainers": [
                    {"name": "e", "image": "i", "targetContainerName": "c"}
                ],
            },
        }
    )
    (debug,) = pod.spec.ephemeral_containers
    parts = ContainerParts(0, "r", ROOT_IMAGE, target_id="abc")

    options = build_container_config(pod, debug, parts, SETTINGS).security.namespaces

    assert (options.pid, options.target_id) == (NamespaceMode.TARGET, "abc")
    with pytest.raises(ContainerConfigError):
        build_container_config(pod, debug, ContainerParts(0, "r", ROOT_IMAGE), SETTINGS)


def test_commands_are_expanded_and_annotations_let_the_pod_be_forgotten() -> None:
    pod = make_pod(
        {
            "command": ["echo", "$(WHO) $(NOBODY) $$(WHO)"],
            "args": ["$(WHO)"],
            "lifecycle": {
                "preStop": {"sleep": {"seconds": 3}},
                "stopSignal": "SIGUSR1",
            },
            "ports": [{"containerPort": 80}],
        },
        terminationGracePeriodSeconds=45,
    )

    config = container_of(pod, env=(EnvVar("WHO", b"me"),), attempt=4)

    assert config.command == ("echo", "me $(NOBODY) $(WHO)")
    assert config.args == ("me",)
    assert config.log_path == "c/4.log"
    assert config.user_specified_image == "i:1"
    assert config.stop_signal == ""
    assert config.labels["io.kubernetes.container.name"] == "c"
    assert "app" not in config.labels
    kept = {
        k.rpartition("/")[2].rpartition(".")[2]: v
        for k, v in config.annotations.items()
    }
    assert kept.pop("hash")
    assert kept == {
        "restartCount": "4",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "terminationGracePeriod": "45",
        "preStopHandler": '{"sleep":{"seconds":3}}',
        "ports": '[{"containerPort":80}]',
    }


@pytest.mark.parametrize(
    ("metadata", "spec", "probe", "expected"),
    [
        pytest.param({}, {"terminationGracePeriodSeconds": 30}, "", 30, id="the-pods"),
        pytest.param({}, {}, "", 2, id="none-is-two"),
        pytest.param(
            {}, {"terminationGracePeriodSeconds": 30}, "liveness", 90, id="the-probes"
        ),
        pytest.param(
            {"deletionGracePeriodSeconds": 5},
            {"terminationGracePeriodSeconds": 30},
            "liveness",
            5,
            id="the-deletions-first",
        ),
    ],
)
def test_grace_periods(
    metadata: Document, spec: Document, probe: str, expected: int
) -> None:
    liveness = {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 90}
    pod = make_pod({"livenessProbe": liveness}, metadata=metadata, **spec)

    assert stop_grace_s(pod, pod.spec.containers[0], probe=probe) == expected


def test_a_log_link_fits_a_file_name() -> None:
    pod = make_pod(metadata={"name": "n" * 250})

    name = container_log_link(pod, "c", "f" * 64)

    assert len(name) == 255
    assert name.endswith(f"-{'f' * 64}.log")
