"""Handlers as the settings of runtimes that people run themselves."""

import tomllib

import pytest

from podyard.containerd.build import RuntimeHandlerConfig
from podyard.containerd.snippets import containerd_snippet, crio_snippet

RUNC = RuntimeHandlerConfig(
    "runc-debug", binary="/opt/runc", options={"Root": "/run/r"}
)
KATA = RuntimeHandlerConfig("kata", "io.containerd.kata.v2")
ODD = RuntimeHandlerConfig('we.ird "name', "io.example.shim.v1", binary="/opt/shim")


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        pytest.param(
            RUNC,
            {
                "runtime_type": "io.containerd.runc.v2",
                "options": {"Root": "/run/r", "BinaryName": "/opt/runc"},
            },
            id="oci-runtime",
        ),
        pytest.param(KATA, {"runtime_type": "io.containerd.kata.v2"}, id="shim"),
        pytest.param(
            ODD,
            {"runtime_type": "io.example.shim.v1", "runtime_path": "/opt/shim"},
            id="odd-name",
        ),
    ],
)
def test_containerd_gets_a_table_a_handler(handler, expected):
    parsed = tomllib.loads(containerd_snippet([handler]))

    runtimes = parsed["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert runtimes == {handler.name: expected}


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        pytest.param(
            RUNC,
            {
                "runtime_path": "/opt/runc",
                "runtime_type": "oci",
                "runtime_root": "/run/r",
            },
            id="oci-runtime",
        ),
        pytest.param(
            RuntimeHandlerConfig("crun"),
            {"runtime_path": "/usr/bin/crun", "runtime_type": "oci"},
            id="oci-runtime-by-name",
        ),
        pytest.param(
            KATA,
            {
                "runtime_path": "/usr/bin/containerd-shim-kata-v2",
                "runtime_type": "vm",
            },
            id="shim",
        ),
        pytest.param(
            ODD, {"runtime_path": "/opt/shim", "runtime_type": "vm"}, id="odd-name"
        ),
    ],
)
def test_crio_gets_a_table_a_handler(handler, expected):
    parsed = tomllib.loads(crio_snippet([handler]))

    assert parsed["crio"]["runtime"]["runtimes"] == {handler.name: expected}
