"""Cgroup names and values, limits for the runtime, OOM scores."""

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.runtime import LinuxResources
from podyard.node.resources.build import (
    HostLimits,
    build_container_resources,
    build_overhead_resources,
    build_sandbox_resources,
)
from podyard.node.resources.cgroups import v1_files, v2_files
from podyard.node.resources.decide import (
    CgroupValues,
    decide_oom_score_adj,
    decide_pod_cgroup,
    kubepods_path,
    milli_to_quota,
    milli_to_shares,
    page_size_name,
    pod_cgroup_path,
    qos_path,
    shares_to_weight,
    uid_of_cgroup,
)

UID = "8f0f8a2e-1d9c"
GIB = 1 << 30


def make_pod(*containers, init=(), **spec):
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": UID},
            "spec": {
                "containers": [
                    {"name": f"c{n}", "resources": r} for n, r in enumerate(containers)
                ],
                "initContainers": list(init),
            }
            | spec,
        }
    )


def limits(cpu, memory):
    return {
        "limits": {"cpu": cpu, "memory": memory},
        "requests": {"cpu": cpu, "memory": memory},
    }


@pytest.mark.parametrize(
    ("root", "driver", "qos", "expected"),
    [
        ("", "cgroupfs", "Guaranteed", f"/kubepods/pod{UID}"),
        ("/", "cgroupfs", "Burstable", f"/kubepods/burstable/pod{UID}"),
        ("/podyard-a", "cgroupfs", "Guaranteed", f"/podyard-a/kubepods/pod{UID}"),
        (
            "/podyard-a",
            "cgroupfs",
            "BestEffort",
            f"/podyard-a/kubepods/besteffort/pod{UID}",
        ),
        (
            "",
            "systemd",
            "Guaranteed",
            "/kubepods.slice/kubepods-pod8f0f8a2e_1d9c.slice",
        ),
        (
            "",
            "systemd",
            "Burstable",
            (
                "/kubepods.slice/kubepods-burstable.slice/"
                "kubepods-burstable-pod8f0f8a2e_1d9c.slice"
            ),
        ),
        (
            "/podyard-a",
            "systemd",
            "BestEffort",
            (
                "/podyard_a.slice/podyard_a-kubepods.slice/"
                "podyard_a-kubepods-besteffort.slice/"
                "podyard_a-kubepods-besteffort-pod8f0f8a2e_1d9c.slice"
            ),
        ),
    ],
)
def test_pod_cgroups_are_named_after_qos_and_uid(root, driver, qos, expected):
    path = pod_cgroup_path(root, qos, UID, driver=driver)

    assert path == expected
    assert path.startswith(qos_path(root, qos, driver=driver))
    assert path.startswith(kubepods_path(root, driver=driver))
    assert uid_of_cgroup(path.rpartition("/")[2], driver=driver) == UID


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("burstable", "cgroupfs"),
        ("cpu.shares", "cgroupfs"),
        ("kubepods-burstable.slice", "systemd"),
        ("cpu.weight", "systemd"),
    ],
)
def test_other_names_are_no_pods(name, driver):
    assert uid_of_cgroup(name, driver=driver) == ""


@pytest.mark.parametrize(
    ("milli", "shares", "quota"),
    [
        (0, 2, 0),
        (1, 2, 1000),
        (100, 102, 10_000),
        (250, 256, 25_000),
        (1000, 1024, 100_000),
        (1_000_000, 262144, 100_000_000),
    ],
)
def test_cpu_becomes_shares_and_quota(milli, shares, quota):
    assert milli_to_shares(milli) == shares
    assert milli_to_quota(milli) == quota


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (10**9, 10000)]
)
def test_shares_become_weights(shares, weight):
    assert shares_to_weight(shares) == weight


def test_huge_pages_are_named_as_cgroups_do():
    assert page_size_name("hugepages-2Mi") == "2MB"
    assert page_size_name("hugepages-1Gi") == "1GB"


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(make_pod({}), CgroupValues(2), id="best-effort"),
        pytest.param(
            make_pod(limits("500m", "64Mi")),
            CgroupValues(512, 50_000, 64 << 20),
            id="guaranteed",
        ),
        pytest.param(
            make_pod({"requests": {"cpu": "100m"}}), CgroupValues(102), id="burstable"
        ),
        pytest.param(
            make_pod({"requests": {"memory": "1Mi"}}), CgroupValues(2), id="no-cpu"
        ),
        pytest.param(
            make_pod(limits("1", "64Mi"), {"requests": {"cpu": "1"}}),
            CgroupValues(2048),
            id="a-container-without-limits-lifts-them",
        ),
        pytest.param(
            make_pod(
                {"limits": {"memory": "64Mi"}, "requests": {"memory": "1Mi"}},
                {"limits": {"memory": "64Mi"}, "requests": {"memory": "1Mi"}},
            ),
            CgroupValues(2, None, 128 << 20),
            id="memory-alone",
        ),
        pytest.param(
            make_pod(limits("1", "64Mi"), overhead={"cpu": "250m", "memory": "36Mi"}),
            CgroupValues(1280, 125_000, 100 << 20),
            id="overhead-counts",
        ),
        pytest.param(
            make_pod(
                {
                    "requests": {"memory": "1Mi", "hugepages-2Mi": "4Mi"},
                    "limits": {"hugepages-2Mi": "4Mi"},
                }
            ),
            CgroupValues(2, hugepages=(("2MB", 4 << 20),)),
            id="hugepages",
        ),
    ],
)
def test_a_pods_own_cgroup(pod, expected):
    assert decide_pod_cgroup(pod) == expected


def test_a_limit_of_processes_counts_for_every_pod():
    assert decide_pod_cgroup(make_pod({}), pids_max=100).pids_max == 100


ALL = CgroupValues(1024, 50_000, 1 << 20, 100, (("2MB", 4),))


@pytest.mark.parametrize(
    ("values", "v1", "v2"),
    [
        pytest.param(CgroupValues(), (), (), id="nothing"),
        pytest.param(
            ALL,
            (
                ("cpu", "cpu.shares", "1024"),
                ("cpu", "cpu.cfs_period_us", "100000"),
                ("cpu", "cpu.cfs_quota_us", "50000"),
                ("memory", "memory.limit_in_bytes", "1048576"),
                ("pids", "pids.max", "100"),
                ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4"),
            ),
            (
                ("cpu", "cpu.weight", "39"),
                ("cpu", "cpu.max", "50000 100000"),
                ("memory", "memory.max", "1048576"),
                ("pids", "pids.max", "100"),
                ("hugetlb", "hugetlb.2MB.max", "4"),
            ),
            id="everything",
        ),
        pytest.param(
            CgroupValues(None, -1, -1, -1),
            (
                ("cpu", "cpu.cfs_period_us", "100000"),
                ("cpu", "cpu.cfs_quota_us", "-1"),
                ("memory", "memory.limit_in_bytes", "-1"),
                ("pids", "pids.max", "max"),
            ),
            (
                ("cpu", "cpu.max", "max 100000"),
                ("memory", "memory.max", "max"),
                ("pids", "pids.max", "max"),
            ),
            id="no-limits",
        ),
    ],
)
def test_values_as_files_of_both_versions(values, v1, v2):
    assert v1_files(values) == v1
    assert v2_files(values) == v2


@pytest.mark.parametrize(
    ("pod", "floor", "expected"),
    [
        pytest.param(make_pod({}), None, 1000, id="best-effort"),
        pytest.param(make_pod(limits("1", "1Gi")), None, -997, id="guaranteed"),
        pytest.param(make_pod(limits("1", "1Gi")), 0, 0, id="not-below-our-own"),
        pytest.param(make_pod(limits("1", "1Gi")), -500, -500, id="down-to-our-own"),
        pytest.param(make_pod({}, priority=2_000_001_000), None, -997, id="critical"),
        pytest.param(
            make_pod({"requests": {"memory": "1Gi"}}), None, 750, id="burstable"
        ),
        pytest.param(
            make_pod({"requests": {"cpu": "1"}}), None, 999, id="no-memory-asked"
        ),
        pytest.param(
            make_pod({"requests": {"memory": "4Gi"}}), None, 3, id="all-of-it"
        ),
    ],
)
def test_oom_scores(pod, floor, expected):
    score = decide_oom_score_adj(
        pod, pod.spec.containers[0], memory_capacity_bytes=4 * GIB, floor=floor
    )

    assert score == expected


def test_a_sidecar_is_no_likelier_to_die_than_whom_it_serves():
    sidecar = {"name": "s", "restartPolicy": "Always"}
    pod = make_pod({"requests": {"memory": "2Gi"}}, init=[sidecar])

    score = decide_oom_score_adj(
        pod, pod.spec.init_containers[0], memory_capacity_bytes=4 * GIB, floor=None
    )

    assert score == 500


HOST = HostLimits(memory_capacity_bytes=4 * GIB)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param(
            {},
            LinuxResources(100_000, 0, 2, 0, oom_score_adj=1000),
            id="nothing",
        ),
        pytest.param(
            {"limits": {"cpu": "500m"}, "requests": {}},
            LinuxResources(100_000, 50_000, 512, 0, oom_score_adj=999),
            id="shares-from-the-limit",
        ),
        pytest.param(
            {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}},
            LinuxResources(100_000, 0, 102, GIB, oom_score_adj=750),
            id="memory",
        ),
    ],
)
def test_limits_of_a_container(resources, expected):
    pod = make_pod(resources)

    assert build_container_resources(pod, pod.spec.containers[0], HOST) == expected


def test_pod_level_limits_reach_containers_without_their_own():
    pod = make_pod({}, resources=limits("1", "1Gi"))

    built = build_container_resources(pod, pod.spec.containers[0], HOST)

    assert (built.cpu_quota_us, built.memory_limit_bytes) == (100_000, GIB)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HOST, {}),
        (HostLimits(GIB, cgroup_version=2), {"memory.oom.group": "1"}),
        (HostLimits(GIB, cgroup_version=2, single_process_oom_kill=True), {}),
        (
            HostLimits(GIB, cgroup_version=2, swap_controller=True),
            {"memory.oom.group": "1", "memory.swap.max": "0"},
        ),
    ],
    ids=["v1", "v2", "single", "swap"],
)
def test_v2_settings(host, expected):
    pod = make_pod({})

    assert (
        build_container_resources(pod, pod.spec.containers[0], host).unified == expected
    )


def test_every_huge_page_size_is_listed():
    host = HostLimits(GIB, hugepage_sizes=("2MB", "1GB"))
    pod = make_pod({"limits": {"hugepages-2Mi": "4Mi"}})

    built = build_container_resources(pod, pod.spec.containers[0], host)

    assert built.hugepage_limits == (("2MB", 4 << 20), ("1GB", 0))


def test_sandboxes_carry_totals_and_overhead_apart():
    pod = make_pod(
        limits("1", "64Mi"),
        limits("500m", "64Mi"),
        overhead={"cpu": "250m", "memory": "10Mi"},
    )

    total = build_sandbox_resources(pod)
    overhead = build_overhead_resources(pod)

    assert total == LinuxResources(100_000, 150_000, 1536, 128 << 20)
    assert overhead == LinuxResources(100_000, 25_000, 256, 10 << 20)
    assert build_overhead_resources(make_pod({})) is None
