"""Which handlers there are, who accepts and who uses them."""

import pytest

from podyard.app.explain import build_handlers


def node(name, *handlers):
    told = [{"name": one, "features": features} for one, features in handlers]
    return {"metadata": {"name": name}, "status": {"runtimeHandlers": told}}


def runtime_class(name, handler):
    return {"metadata": {"name": name}, "handler": handler}


RUNC = ("runc", {"userNamespaces": True, "recursiveReadOnlyMounts": False})
CRUN = ("crun", {})


@pytest.mark.parametrize(
    ("nodes", "classes", "configured", "expected"),
    [
        pytest.param([], [], [], {}, id="nothing"),
        pytest.param(
            [node("a", RUNC)],
            [runtime_class("fast", "runc"), runtime_class("also", "runc")],
            [],
            {"runc": ({"a": "accepts"}, ["userNamespaces"], ["also", "fast"])},
            id="accepted-and-used",
        ),
        pytest.param(
            [node("a", RUNC)],
            [runtime_class("k", "kata")],
            [],
            {
                "kata": ({"a": "refuses"}, [], ["k"]),
                "runc": ({"a": "accepts"}, ["userNamespaces"], []),
            },
            id="a-class-nobody-serves",
        ),
        pytest.param(
            [node("a"), node("b", CRUN)],
            [],
            ["mine"],
            {
                "crun": ({"a": "unknown", "b": "accepts"}, [], []),
                "mine": ({"a": "unknown", "b": "refuses"}, [], []),
            },
            id="a-runtime-that-does-not-tell",
        ),
    ],
)
def test_handlers_are_listed(nodes, classes, configured, expected):
    found = build_handlers(nodes, classes, configured)

    assert {
        one["handler"]: (one["nodes"], one["features"], one["runtimeClasses"])
        for one in found
    } == expected
    assert [one["handler"] for one in found if one["configured"]] == configured
