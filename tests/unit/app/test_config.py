"""Flags, variables and file make one config, and bad ones are named."""

from pathlib import Path

import pytest

from podyard.app.config import SETTINGS, ConfigError, load_config


def write(tmp_path, text):
    file = tmp_path / "podyard.yaml"
    file.write_text(text)
    return file


def test_defaults_put_data_under_the_instances_name():
    config = load_config({"name": "ci"}, {})

    assert config.data_dir == Path("/var/lib/podyard/ci")
    assert config.root_dir == Path("/var/lib/kubelet")
    assert config.semantics == "documented"


def test_flags_beat_variables_and_variables_beat_the_file(tmp_path):
    file = write(tmp_path, "port: 1\nnode-port: 1\nname: a\n")

    config = load_config(
        {"port": "3"}, {"PODYARD_PORT": "2", "PODYARD_NODE_PORT": "2"}, file
    )

    assert (config.port, config.node_port, config.name) == (3, 2, "a")


def test_the_file_may_be_named_by_a_variable(tmp_path):
    file = write(tmp_path, "maxPods: 7\n")

    assert load_config({}, {"PODYARD_CONFIG": str(file)}).max_pods == 7


def test_kubelet_settings_keep_their_names(tmp_path):
    file = write(
        tmp_path,
        "serializeImagePulls: true\nimageMinimumGCAge: 5m\n"
        "crashLoopBackOff: {maxContainerRestartPeriod: 10s}\nclusterDNS: [10.0.0.10]\n",
    )

    config = load_config({}, {}, file)

    assert config.serialize_image_pulls
    assert config.image_minimum_gc_age_s == 300
    assert config.max_container_restart_period_s == 10
    assert config.cluster_dns == ("10.0.0.10",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("prot: 1", 'unknown key "prot"', id="unknown-key"),
        pytest.param("port: x", "port: ", id="no-number"),
        pytest.param("port: 70000", "between 0 and 65535", id="no-port"),
        pytest.param("port: true", "whole number", id="boolean-as-number"),
        pytest.param("semantics: mine", "documented, upstream", id="no-choice"),
        pytest.param("maxPods: 0", "between 1 and 5000", id="out-of-range"),
        pytest.param("imageMinimumGCAge: soon", "not a duration", id="no-span"),
        pytest.param("listen: {a: 1}", "list of strings", id="no-list"),
        pytest.param("- a", "must be a map", id="no-map"),
        pytest.param("prot: 1", r'unknown key "prot"; did you mean port', id="typo"),
        pytest.param("maxpods: 1", "did you mean maxPods", id="other-case"),
        pytest.param("wibble: 1", "known keys: name, data-dir", id="nothing-near"),
        pytest.param("port: many", "port: must be a whole number", id="no-number"),
        pytest.param("port: 1\nport: 2", 'key "port" stands twice', id="twice"),
        pytest.param(
            "evictionHard: {memory.available: lots}",
            'evictionHard: memory.available: "lots": quantities must match',
            id="no-amount",
        ),
        pytest.param(
            "evictionSoft: {memory: 1}",
            'evictionSoft: unknown eviction signal "memory"',
            id="no-signal",
        ),
        pytest.param("a: [", "not valid YAML", id="no-yaml"),
        pytest.param("runtimes: [a]", "list of maps", id="no-maps"),
        pytest.param(
            "imageGCLowThresholdPercent: 90", "must be below", id="thresholds-crossed"
        ),
        pytest.param("ip-families: IPv6", "IPv4 or IPv4,IPv6", id="ipv6-alone"),
        pytest.param("pod-cidr: 10.1.0.5/24", "host bits", id="no-network"),
        pytest.param("pod-cidr: 'fd00::/64'", "IPv4 range, or one", id="no-ipv4-range"),
        pytest.param("service-cidr: 10.1.0.0/28", "at most 27 bits", id="too-small"),
        pytest.param("name: Not_A_Label", "DNS label", id="bad-name"),
        pytest.param("name: ../up", "DNS label", id="name-with-dots"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_config({}, {}, write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_config({}, {}, tmp_path / "nowhere.yaml")


def test_a_bad_variable_is_named():
    with pytest.raises(ConfigError, match="PODYARD_PORT"):
        load_config({}, {"PODYARD_PORT": "many"})


def test_ranges_are_read_as_text_or_list(tmp_path):
    file = write(
        tmp_path,
        "ip-families: [IPv4, IPv6]\npod-cidr: [10.1.0.0/16, 'FD00::/64']\n",
    )

    config = load_config({"service-cidr": "10.2.0.0/16"}, {}, file)

    assert config.ip_families == ("IPv4", "IPv6")
    assert config.pod_cidrs == ("10.1.0.0/16", "fd00::/64")
    assert config.service_cidrs == ("10.2.0.0/16",)


def test_feature_gates_are_read_from_flags():
    config = load_config({"feature-gates": "ContainerStopSignals=true"}, {})

    assert config.feature_gates == {"ContainerStopSignals": True}


def test_an_unknown_feature_gate_is_named():
    with pytest.raises(ConfigError, match="NoSuchGate"):
        load_config({"feature-gates": "NoSuchGate=true"}, {})


def test_no_two_settings_share_a_key_or_a_field():
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)
    assert len({setting.field for setting in SETTINGS}) == len(SETTINGS)
