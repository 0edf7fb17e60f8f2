"""Handlers of the config and of the host."""

import re
from pathlib import Path

import pytest

from podyard.app.config import ConfigError, load_config
from podyard.app.handlers import crun_wrapper, offer_handlers, parse_handlers
from podyard.containerd.build import RUNC_SHIM, RuntimeHandlerConfig

OCI_KNOWN = "known: BinaryName, CriuImagePath"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param({"name": "a"}, RuntimeHandlerConfig("a"), id="name-alone"),
        pytest.param(
            {"name": "a", "binary": "/opt/runc", "options": {"NoNewKeyring": True}},
            RuntimeHandlerConfig(
                "a", RUNC_SHIM, "/opt/runc", options={"NoNewKeyring": True}
            ),
            id="another-runc",
        ),
        pytest.param(
            {"name": "a", "binary": None, "options": None, "podAnnotations": None},
            RuntimeHandlerConfig("a"),
            id="nothing-said",
        ),
        pytest.param(
            {
                "name": "k",
                "type": "io.containerd.kata.v2",
                "options": {"ConfigPath": "/etc/kata.toml"},
                "podAnnotations": ["io.katacontainers.*"],
                "containerAnnotations": ["x.*"],
                "privilegedWithoutHostDevices": True,
            },
            RuntimeHandlerConfig(
                "k",
                "io.containerd.kata.v2",
                options={"ConfigPath": "/etc/kata.toml"},
                pod_annotations=("io.katacontainers.*",),
                container_annotations=("x.*",),
                privileged_without_host_devices=True,
            ),
            id="another-shim",
        ),
    ],
)
def test_an_entry_becomes_a_handler(entry, expected):
    assert parse_handlers([entry]) == (expected,)


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        pytest.param([{}], "entry 1: a handler needs a name", id="no-name"),
        pytest.param(
            [{"name": "a"}, {"name": 7}],
            "entry 2: a handler needs a name",
            id="name-is-a-number",
        ),
        pytest.param(
            [{"name": "A_b"}],
            'entry 1: name "A_b": a lowercase RFC 1123',
            id="no-label",
        ),
        pytest.param(
            [{"name": "a.b"}],
            'entry 1: name "a.b": must not contain dots',
            id="dots",
        ),
        pytest.param(
            [{"name": "a"}, {"name": "a"}],
            'handler "a" stands there twice',
            id="twice",
        ),
        pytest.param(
            [{"name": "a", "Binary": "x", "extra": 1}],
            'handler "a": unknown key Binary, extra; known: name, type, binary,',
            id="unknown-key",
        ),
        pytest.param(
            [{"name": "a", "binary": ["x"]}],
            'handler "a": binary must be a string',
            id="binary-is-a-list",
        ),
        pytest.param(
            [{"name": "a", "binary": "bin/x"}],
            'handler "a": binary "bin/x" must be a path from the root',
            id="relative-binary",
        ),
        pytest.param(
            [{"name": "a", "options": ["x"]}],
            'handler "a": options must be a map',
            id="options-are-a-list",
        ),
        pytest.param(
            [{"name": "a", "options": {"Root": {}}}],
            'handler "a": option Root must be a string, a number, true or false',
            id="option-is-a-map",
        ),
        pytest.param(
            [{"name": "a", "options": {"binaryName": "/x"}}],
            f'handler "a": {RUNC_SHIM} has no option binaryName; {OCI_KNOWN}',
            id="unknown-option",
        ),
        pytest.param(
            [{"name": "a", "podAnnotations": "x"}],
            'handler "a": podAnnotations must be a list of strings',
            id="annotations-are-a-string",
        ),
        pytest.param(
            [{"name": "a", "privilegedWithoutHostDevices": "yes"}],
            'handler "a": privilegedWithoutHostDevices must be true or false',
            id="switch-is-a-string",
        ),
    ],
)
def test_a_bad_entry_is_named(entries, error):
    with pytest.raises(ValueError, match=re.escape(error)) as caught:
        parse_handlers(entries)

    assert str(caught.value).startswith(error)


def test_the_config_says_where_a_bad_entry_stands(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("runtimes: [{name: a, colour: red}]\n")

    with pytest.raises(ConfigError) as caught:
        load_config({}, {}, file)

    assert str(caught.value).startswith(
        f'{file}: runtimes: handler "a": unknown key colour; known: name,'
    )


def offered(*installed, configured=(), hidden=None):
    programs = {name: Path("/bin", name) for name in installed}
    return offer_handlers(
        configured,
        find_program=programs.get,
        hidden_cgroup=hidden,
        directory=Path("/made"),
    )


UNIFIED = Path("/sys/fs/cgroup/unified")


@pytest.mark.parametrize(
    ("offer", "names"),
    [
        pytest.param(offered(), [], id="nothing-installed"),
        pytest.param(offered("crun"), ["crun"], id="crun"),
        pytest.param(
            offered("crun", hidden=UNIFIED), [], id="crun-that-would-not-work"
        ),
        pytest.param(
            offered("crun", "unshare", "umount", hidden=UNIFIED),
            ["crun"],
            id="crun-behind-a-wrapper",
        ),
        pytest.param(
            offered("containerd-shim-runsc-v1", "containerd-shim-kata-v2"),
            ["runsc", "kata"],
            id="shims",
        ),
        pytest.param(offered("runsc"), [], id="gvisor-without-its-shim"),
        pytest.param(
            offered("crun", configured=(RuntimeHandlerConfig("mine"),)),
            ["mine", "crun"],
            id="the-configured-first",
        ),
    ],
)
def test_what_the_host_has_is_offered(offer, names):
    assert [handler.name for handler in offer.handlers] == names


def test_configured_handlers_win_over_found_ones():
    mine = (
        RuntimeHandlerConfig("crun", binary="crun"),
        RuntimeHandlerConfig("runsc", "io.containerd.runsc.v1", binary="crun"),
    )

    offer = offered("crun", "containerd-shim-runsc-v1", configured=mine, hidden=UNIFIED)

    assert offer.handlers == mine
    assert not offer.programs


def test_a_configured_program_that_is_not_there_is_told():
    mine = (RuntimeHandlerConfig("a", binary="/opt/runc"), RuntimeHandlerConfig("b"))

    assert offered(configured=mine).missing == {"a": "/opt/runc"}


def test_the_wrapper_hides_the_tree_from_crun_alone():
    offer = offered("crun", "unshare", "umount", hidden=UNIFIED)

    assert offer.handlers == (RuntimeHandlerConfig("crun", binary="/made/crun"),)
    assert offer.programs == {
        Path("/made/crun"): crun_wrapper(Path("/bin/crun"), UNIFIED)
    }
    assert crun_wrapper(Path("/my crun"), Path("/cg roup")) == (
        "#!/bin/sh\n"
        "exec unshare --mount --propagation slave "
        "sh -c 'umount '\"'\"'/cg roup'\"'\"' && exec \"$@\"' crun '/my crun' \"$@\"\n"
    )
