"""RuntimeClass to handler."""

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import RuntimeHandler, RuntimeStatus
from podyard.node.runtime_classes.decide import (
    ClassMissing,
    UseHandler,
    cannot_run,
    decide_handler,
    find_handler,
    list_handlers,
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


@pytest.mark.parametrize(
    ("runtime_name", "handler", "expected"),
    [
        pytest.param("docker", "docker", "", id="dockers-only-handler"),
        pytest.param("containerd", "docker", "docker", id="elsewhere-any-name"),
        pytest.param("", "docker", "docker", id="runtime-not-known-yet"),
        pytest.param("docker", "crun", "crun", id="no-other-with-docker"),
    ],
)
def test_the_handler_docker_is_cri_dockerds_default(runtime_name, handler, expected):
    manager = RuntimeClassManager(
        {"x": {"handler": handler}}.get, runtime_name=lambda: runtime_name
    )

    assert manager.handler_for(make_pod(runtimeClassName="x")) == expected


OCI = "failed to create containerd task: failed to create shim task: "
SILENT = f"{OCI}OCI runtime create failed: unable to retrieve OCI runtime error (open x"


@pytest.mark.parametrize(
    ("handler", "failure", "expected"),
    [
        pytest.param(
            "a",
            'failed to get sandbox runtime: no runtime for "a" is configured',
            True,
            id="unknown-to-containerd-1",
        ),
        pytest.param(
            "a",
            'unable to get OCI runtime for sandbox "1": no runtime for "a" is '
            "configured",
            True,
            id="unknown-to-containerd-2",
        ),
        pytest.param(
            "a",
            "failed to find runtime handler a from runtime list map[runc:0x1]",
            True,
            id="unknown-to-cri-o",
        ),
        pytest.param(
            "a",
            f"{SILENT}): /bin/false did not terminate successfully: exit status 1",
            True,
            id="program-fails-without-a-word",
        ),
        pytest.param(
            "a",
            f"{SILENT}): fork/exec /opt/runc: no such file or directory",
            True,
            id="program-missing",
        ),
        pytest.param(
            "a",
            "failed to create containerd task: failed to start shim: failed to resolve "
            'runtime path: runtime "io.containerd.kata.v2" binary not installed '
            '"containerd-shim-kata-v2": file does not exist',
            True,
            id="shim-missing",
        ),
        pytest.param(
            "a",
            f"{OCI}OCI runtime create failed: runc create failed: open "
            "/proc/sys/kernel/x: no such file or directory",
            False,
            id="the-runtime-says-what-is-wrong-with-the-pod",
        ),
        pytest.param(
            "a",
            f"{SILENT}): fork/exec /opt/runc: resource temporarily unavailable",
            False,
            id="short-of-processes",
        ),
        pytest.param(
            "a",
            f"{SILENT}): runc did not terminate successfully: signal: killed",
            False,
            id="killed",
        ),
        pytest.param(
            "a",
            "failed to setup network for sandbox: no free addresses",
            False,
            id="no-network",
        ),
        pytest.param(
            "",
            f"{SILENT}): fork/exec /usr/bin/runc: no such file or directory",
            False,
            id="the-default-handler-is-tried-again",
        ),
    ],
)
def test_what_means_that_a_handler_can_never_run(handler, failure, expected):
    assert cannot_run(handler, failure) is expected


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        pytest.param((), "", id="a-runtime-that-does-not-tell"),
        pytest.param(
            ("", "runc", "crun"),
            " (runtime handlers of this node: crun, runc)",
            id="sorted-without-the-default",
        ),
    ],
)
def test_the_handlers_there_are(handlers, expected):
    assert list_handlers(handlers) == expected


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
