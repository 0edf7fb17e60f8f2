"""RuntimeClass to handler."""

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import RuntimeHandler, RuntimeStatus
from podyard.node.runtime_classes.decide import (
    ClassMissing,
    UseHandler,
    decide_handler,
    find_handler,
    refuse_user_namespace,
)
from podyard.node.runtime_classes.manager import RuntimeClassManager
from podyard.node.runtime_classes.parts import RuntimeClassError


def make_pod(**spec):
    return Pod.of({"metadata": {"name": "p"}, "spec": {"containers": []} | spec})


@pytest.mark.parametrize(
    ("spec", "found", "expected"),
    [
        pytest.param({}, None, UseHandler(""), id="none-named"),
        pytest.param({"runtimeClassName": ""}, None, UseHandler(""), id="empty-name"),
        pytest.param(
            {"runtimeClassName": "x"},
            {"handler": "crun"},
            UseHandler("crun"),
            id="found",
        ),
        pytest.param(
            {"runtimeClassName": "x"},
            None,
            ClassMissing('runtimeclass.node.k8s.io "x" not found'),
            id="missing",
        ),
    ],
)
def test_the_handler_of_a_pod(spec, found, expected):
    assert decide_handler(make_pod(**spec), found) == expected


WITH = RuntimeHandler("crun", user_namespaces=True)


@pytest.mark.parametrize(
    ("spec", "handler", "expected"),
    [
        pytest.param({}, RuntimeHandler(""), "", id="not-asked-for"),
        pytest.param({"hostUsers": True}, RuntimeHandler(""), "", id="the-nodes"),
        pytest.param({"hostUsers": False}, WITH, "", id="supported"),
        pytest.param(
            {"hostUsers": False},
            RuntimeHandler("crun"),
            "can't set `spec.hostUsers: false`, RuntimeClass handler "
            '"crun" does not support user namespaces',
            id="handler-cannot",
        ),
        pytest.param(
            {"hostUsers": False},
            RuntimeHandler(""),
            "can't set `spec.hostUsers: false`, runtime does not support user "
            "namespaces",
            id="runtime-cannot",
        ),
    ],
)
def test_user_namespaces_are_refused_where_there_are_none(spec, handler, expected):
    assert refuse_user_namespace(make_pod(**spec), handler) == expected


def test_a_handler_the_runtime_does_not_list_has_no_features():
    assert find_handler((WITH,), "runc") == RuntimeHandler("runc")


def test_classes_are_looked_up_each_time():
    classes = {"x": {"handler": "crun"}}
    manager = RuntimeClassManager(classes.get)
    pod = make_pod(runtimeClassName="x")

    assert manager.handler_for(pod) == "crun"
    classes.clear()
    with pytest.raises(RuntimeClassError) as caught:
        manager.handler_for(pod)

    assert caught.value.message == 'runtimeclass.node.k8s.io "x" not found'


def test_features_come_from_the_runtimes_status():
    status = RuntimeStatus((), (RuntimeHandler("", recursive_read_only_mounts=True),))
    manager = RuntimeClassManager(lambda _name: None, lambda: status)

    assert manager.recursive_read_only(make_pod())
    assert not manager.recursive_read_only(make_pod(runtimeClassName="x"))
    with pytest.raises(RuntimeClassError):
        manager.handler_for(make_pod(hostUsers=False))
