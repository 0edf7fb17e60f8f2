"""containerd's configuration, by version."""

import json
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podyard.containerd.build import (
    ContainerdConfig,
    RuntimeHandlerConfig,
    build_cni,
    build_config,
    dump_toml,
    merge_tables,
    parse_version,
)

CONFIG = ContainerdConfig(
    root="/data/containerd",
    state="/run/p/containerd",
    socket="/run/p/containerd.sock",
    runc_root="/run/p/runc",
    sandbox_image="podyard.local/sandbox:1",
    network="podyard-p",
    bridge="pyd-p",
    pod_cidrs=("10.88.3.0/24",),
    cni_conf_dir="/data/net.d",
    cni_bin_dir="/usr/lib/cni",
    cni_state_dir="/run/p/cni",
    registry_dir="/data/hosts",
)
CRI_2 = "io.containerd.grpc.v1.cri"


def plugins(config=CONFIG, version=(1, 6), **more):
    return tomllib.loads(build_config(config, version=version, **more))["plugins"]


@pytest.mark.parametrize(
    ("version", "format_version"),
    [((1, 6), 2), ((1, 7), 2), ((2, 0), 3), ((2, 1), 3)],
)
def test_format_follows_the_version(version, format_version):
    table = tomllib.loads(build_config(CONFIG, version=version))

    assert table["version"] == format_version
    assert table["root"] == CONFIG.root
    assert table["state"] == CONFIG.state
    assert table["grpc"]["address"] == CONFIG.socket


def test_version_1_6_has_every_setting_in_its_place():
    cri = plugins()[CRI_2]

    assert cri["sandbox_image"] == CONFIG.sandbox_image
    assert cri["cni"] == {"bin_dir": "/usr/lib/cni", "conf_dir": "/data/net.d"}
    assert cri["registry"] == {"config_path": "/data/hosts"}
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["containerd"]["snapshotter"] == "overlayfs"
    assert "enable_cdi" not in cri


def test_version_1_7_knows_cdi():
    assert plugins(version=(1, 7))[CRI_2]["enable_cdi"] is True


def test_version_2_splits_images_from_runtime():
    made = plugins(version=(2, 0))

    images, runtime = (
        made["io.containerd.cri.v1.images"],
        made["io.containerd.cri.v1.runtime"],
    )
    assert images["pinned_images"] == {"sandbox": CONFIG.sandbox_image}
    assert images["registry"] == {"config_path": "/data/hosts"}
    assert images["image_pull_with_sync_fs"] is True
    assert runtime["cni"]["bin_dir"] == "/usr/lib/cni"
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["Root"] == "/run/p/runc"


def test_version_2_1_takes_several_plugin_directories():
    cni = plugins(version=(2, 1))["io.containerd.cri.v1.runtime"]["cni"]

    assert cni["bin_dirs"] == ["/usr/lib/cni"]
    assert "bin_dir" not in cni


@pytest.mark.parametrize("version", [(1, 6), (2, 0)])
def test_unused_plugins_are_left_out_but_not_the_needed_ones(version):
    disabled = set(
        tomllib.loads(build_config(CONFIG, version=version))["disabled_plugins"]
    )

    assert "io.containerd.snapshotter.v1.devmapper" in disabled
    # containerd 1.6 cannot manage tasks without its first runtime plugin.
    assert "io.containerd.runtime.v1.linux" not in disabled
    assert not any("overlayfs" in name or "native" in name for name in disabled)


def test_handlers_are_runtimes_of_containerd():
    crun = RuntimeHandlerConfig("crun", binary="/usr/bin/crun")
    kata = RuntimeHandlerConfig(
        "kata",
        runtime_type="io.containerd.kata.v2",
        pod_annotations=("io.katacontainers.*",),
    )
    config = replace(CONFIG, runtimes=(crun, kata), systemd_cgroup=True)

    runtimes = plugins(config)[CRI_2]["containerd"]["runtimes"]

    assert set(runtimes) == {"runc", "crun", "kata"}
    assert runtimes["crun"]["options"] == {
        "BinaryName": "/usr/bin/crun",
        "Root": "/run/p/runc",
        "SystemdCgroup": True,
    }
    assert "options" not in runtimes["kata"]
    assert runtimes["kata"]["pod_annotations"] == ["io.katacontainers.*"]


def test_handler_named_runc_replaces_the_built_in_one():
    config = replace(
        CONFIG, runtimes=(RuntimeHandlerConfig("runc", binary="/opt/runc"),)
    )

    runtimes = plugins(config)[CRI_2]["containerd"]["runtimes"]

    assert runtimes["runc"]["options"]["BinaryName"] == "/opt/runc"


def test_drop_ins_are_laid_over_in_order():
    first = {
        "plugins": {CRI_2: {"max_concurrent_downloads": 9, "stats_collect_period": 1}}
    }
    second = {"plugins": {CRI_2: {"max_concurrent_downloads": 7}}, "oom_score": -5}

    made = tomllib.loads(build_config(CONFIG, version=(1, 6), drop_ins=[first, second]))

    cri = made["plugins"][CRI_2]
    assert (cri["max_concurrent_downloads"], cri["stats_collect_period"]) == (7, 1)
    assert cri["sandbox_image"] == CONFIG.sandbox_image
    assert made["oom_score"] == -5


def test_table_laid_over_a_value_replaces_it():
    assert merge_tables({"a": 1}, {"a": {"b": ["x", 2], "c": 1.5}}) == {
        "a": {"b": ["x", "2"], "c": "1.5"}
    }


def test_network_is_a_plain_bridge():
    conflist = json.loads(build_cni(CONFIG))

    (bridge,) = conflist["plugins"]
    assert conflist["name"] == "podyard-p"
    assert (bridge["type"], bridge["bridge"]) == ("bridge", "pyd-p")
    assert bridge["isGateway"]
    assert bridge["hairpinMode"]
    assert not bridge["ipMasq"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.88.3.0/24"}]]
    assert bridge["ipam"]["dataDir"] == "/run/p/cni"


def test_network_of_both_families_gives_an_address_and_a_way_out_of_each():
    config = replace(CONFIG, pod_cidrs=("10.88.3.0/24", "fd88::/64"))

    (bridge,) = json.loads(build_cni(config))["plugins"]

    ipam = bridge["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.88.3.0/24"}], [{"subnet": "fd88::/64"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1",
            (1, 6),
            id="debian",
        ),
        pytest.param("containerd containerd.io v1.7.27 05044ec", (1, 7), id="docker"),
        pytest.param(
            "containerd github.com/containerd/containerd/v2 v2.1.4 abc",
            (2, 1),
            id="two",
        ),
    ],
)
def test_version_is_read(text, expected):
    assert parse_version(text) == expected


def test_no_version_is_told():
    with pytest.raises(ValueError, match="no containerd version"):
        parse_version("bash: not found")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = (
    st.booleans() | st.integers(-(2**60), 2**60) | words | st.lists(words, max_size=3)
)
tables = st.recursive(
    st.dictionaries(words, values, max_size=4),
    lambda inner: st.dictionaries(words, values | inner, max_size=3),
    max_leaves=6,
)


@given(tables)
def test_toml_says_what_the_table_says(table):
    assert tomllib.loads(dump_toml(table)) == table
