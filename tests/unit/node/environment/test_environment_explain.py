"""Where variables come from; what came from a Secret is known by its way."""

import base64

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.runtime import EnvVar
from podyard.node.environment.build import EnvironmentSources, build_environment
from podyard.node.environment.explain import describe_environment, explain_environment

CANARY = "canary-value"


def b64(text):
    return base64.b64encode(text.encode()).decode()


SERVICE = {
    "metadata": {"name": "db", "namespace": "ns"},
    "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432}]},
}
SOURCES = EnvironmentSources(
    services=(SERVICE,),
    config_maps={"cm": {"data": {"A": "from-map", "B": "b"}}, "gone": None},
    secrets={"s": {"data": {"A": b64(CANARY), "KEY": b64(CANARY)}}},
    files={("v", "f"): f"A='{CANARY}'"},
    pod_ips=("10.0.0.2",),
)


def secret_ref(name):
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}}


def make(env=(), env_from=()):
    container = {"name": "c", "image": "i", "env": list(env), "envFrom": list(env_from)}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "containers": [container],
                "enableServiceLinks": True,
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        }
    )


def explain(pod, shown=frozenset(), **more):
    found = explain_environment(pod, pod.spec.containers[0], SOURCES, **more)
    return {one.name: one.to_document(shown) for one in found}


CASES = [
    pytest.param([{"name": "A", "value": "1"}], [], id="value"),
    pytest.param([secret_ref("A")], [], id="secret"),
    pytest.param(
        [
            secret_ref("PASSWORD"),
            {"name": "URL", "value": "db://u:$(PASSWORD)@$(DB_SERVICE_HOST)"},
            {"name": "AGAIN", "value": "x$(URL)"},
        ],
        [],
        id="taken-in",
    ),
    pytest.param(
        [{"name": "A", "value": "own"}],
        [{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
        id="overridden-twice",
    ),
    pytest.param(
        [], [{"prefix": "P_", "secretRef": {"name": "s"}}], id="prefix-and-secret"
    ),
    pytest.param(
        [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {
                "name": "F",
                "valueFrom": {
                    "fileKeyRef": {"volumeName": "v", "path": "f", "key": "A"}
                },
            },
        ],
        [],
        id="field-and-file",
    ),
    pytest.param([{"name": "DB_SERVICE_HOST", "value": "mine"}], [], id="over-service"),
]


@pytest.mark.parametrize(("env", "env_from"), CASES)
def test_the_values_are_those_the_runtime_is_given(env, env_from):
    pod = make(env, env_from)

    built = build_environment(pod, pod.spec.containers[0], SOURCES)
    told = explain_environment(pod, pod.spec.containers[0], SOURCES)

    assert tuple(EnvVar(one.name, one.value.encode()) for one in told) == built


@pytest.mark.parametrize(("env", "env_from"), CASES)
def test_no_value_of_a_secret_or_a_file_is_shown(env, env_from):
    pod = make(env, env_from)

    assert CANARY not in str(explain(pod))
    assert CANARY not in repr(explain_environment(pod, pod.spec.containers[0], SOURCES))


def test_a_secret_is_shown_to_whom_it_may_be_and_a_file_to_nobody():
    pod = make(CASES[2].values[0] + CASES[5].values[0])

    told = explain(pod, frozenset({"s"}))

    assert told["PASSWORD"]["value"] == CANARY
    assert told["URL"]["value"] == f"db://u:{CANARY}@10.96.0.7"
    assert told["F"]["hidden"] == ["a file"]
    assert explain(pod, frozenset({"other"}))["URL"]["hidden"] == ["s"]


def test_each_variable_names_its_source_and_what_it_takes_in():
    told = explain(make(CASES[2].values[0]))

    assert told["PASSWORD"]["source"] == {
        "kind": "secretKeyRef",
        "name": "s",
        "key": "KEY",
    }
    assert told["URL"]["uses"] == ["PASSWORD", "DB_SERVICE_HOST"]
    assert told["AGAIN"]["hidden"] == ["s"]
    assert told["DB_PORT"]["source"] == {"kind": "service", "name": "db"}


def test_what_was_overridden_is_told_nearest_first():
    told = explain(
        make([{"name": "A", "value": "own"}], CASES[3].values[1]),
        image=("A=image", "PATH=/bin"),
    )

    assert told["A"]["value"] == "own"
    assert [source["kind"] for source in told["A"]["overrode"]] == [
        "secretRef",
        "configMapRef",
        "image",
    ]
    assert told["PATH"] == {
        "name": "PATH",
        "source": {"kind": "image"},
        "value": "/bin",
    }


def test_a_source_that_is_missing_is_told_and_the_rest_goes_on():
    broken = {
        "name": "X",
        "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}},
    }

    told = explain(
        make([broken, {"name": "B", "value": "b"}], [{"configMapRef": {"name": "no"}}])
    )

    assert told["X"]["error"] == 'configmap "gone" not found'
    assert told["*"]["error"] == 'configmap "no" not found'
    assert told["B"]["value"] == "b"


def test_bytes_that_are_no_text_are_shown_as_escapes():
    sources = EnvironmentSources(secrets={"s": {"data": {"KEY": "//4="}}})
    pod = make([secret_ref("A")])

    (origin,) = explain_environment(pod, pod.spec.containers[0], sources)

    assert origin.to_document(frozenset({"s"}))["value"] == "\\xff\\xfe"


def beside(pod, running, shown=frozenset()):
    container = pod.spec.containers[0]
    origins = explain_environment(pod, container, SOURCES)
    found = describe_environment(container, origins, running, shown)
    return {one["name"]: one for one in found}


PLAIN = [{"name": "A", "value": "now"}, {"name": "B", "value": "same"}]


def test_what_the_running_container_has_is_told_beside():
    told = beside(
        make([*PLAIN, {"name": "NEW", "value": "1"}]),
        ("A=then", "B=same", "HOSTNAME=p", "LEFT=over", "DB_PORT=x"),
    )

    assert (told["A"]["value"], told["A"]["runningValue"]) == ("now", "then")
    assert "running" not in told["B"]
    assert told["NEW"]["running"] == "absent"
    assert told["HOSTNAME"] == {
        "name": "HOSTNAME",
        "source": {"kind": "runtime"},
        "value": "p",
    }
    assert told["LEFT"]["source"] == {"kind": "gone"}


def test_nothing_is_compared_where_nobody_knows_what_runs():
    assert "running" not in str(beside(make(PLAIN), ()))


@pytest.mark.parametrize(
    ("env", "env_from"),
    [
        pytest.param(PLAIN, [{"secretRef": {"name": "s"}}], id="key-removed-since"),
        pytest.param(
            [{"name": "A", "value": "$(OLD)"}],
            [{"secretRef": {"name": "s"}}],
            id="taken-in-before",
        ),
        pytest.param([*CASES[5].values[0], *PLAIN], [], id="file"),
    ],
)
def test_no_running_value_is_shown_that_may_once_have_been_secret(env, env_from):
    running = (f"A={CANARY}", f"B={CANARY}", f"PATH={CANARY}", f"OLD={CANARY}")

    told = beside(make(env, env_from), running)

    assert CANARY not in str(told)
    assert told["OLD"]["hidden"] == ["the running container"]


def test_running_values_are_shown_to_whom_every_secret_may_be():
    pod = make(PLAIN, [{"secretRef": {"name": "s"}}])

    told = beside(pod, ("A=then", "OLD=x"), frozenset({"s"}))

    assert (told["A"]["runningValue"], told["OLD"]["value"]) == ("then", "x")
