"""Explanations as people read them."""

import pytest

from podyard.cli.explain_text import (
    BAR,
    draw_bar,
    env_lines,
    hook_rows,
    pod_lines,
    pull_lines,
    schedule_lines,
    source_text,
    stop_lines,
)

OPENED = "2026-01-02T03:04:05.678901Z"


@pytest.mark.parametrize(
    ("begin", "span", "whole", "expected"),
    [
        pytest.param(0, 1, 1, "#" * BAR, id="all"),
        pytest.param(0, 1, 2, "#" * 24 + "." * 24, id="first-half"),
        pytest.param(1, 1, 2, "." * 24 + "#" * 24, id="second-half"),
        pytest.param(0, 0, 1, "." * BAR, id="nothing"),
        pytest.param(0, 0.001, 60, "#" + "." * 47, id="short-is-seen"),
        pytest.param(60, 0.001, 60, "." * 47 + "#", id="short-at-the-end"),
        pytest.param(0, 99, 60, "#" * BAR, id="never-beyond"),
    ],
)
def test_a_bar_fills_its_columns(begin, span, whole, expected):
    bar = draw_bar(begin, span, whole)

    assert bar == expected
    assert len(bar) == BAR


def test_a_stop_is_drawn_as_its_grace_period():
    stop = {
        "openedAt": OPENED,
        "beganAt": OPENED,
        "container": "app",
        "why": "deleted",
        "graceSeconds": 60,
        "tookSeconds": 60.1,
        "hook": "delivered",
        "hookSeconds": 55.0,
        "termSeconds": 5.0,
        "killSeconds": 0.1,
        "endedBy": "SIGKILL",
    }

    lines = list(stop_lines({"stops": [stop]}))

    assert lines[0] == "app  deleted  2026-01-02 03:04:05.678"
    assert lines[1].startswith("  PreStop  |#####")
    assert lines[1].endswith("55.00s  delivered")
    assert lines[2].startswith("  TERM     |......")
    assert lines[-1] == "  ended by SIGKILL after 60.10s of a grace period of 60.00s"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        pytest.param({}, "under way; over at", id="under-way"),
        pytest.param(
            {"tookSeconds": 1, "endedBy": "itself", "hookUsedGrace": True},
            "the hook used it up",
            id="used-up",
        ),
        pytest.param(
            {"tookSeconds": 1, "endedBy": "itself", "resumedAt": OPENED},
            "resumed after a restart at 2026-01-02 03:04:05.678",
            id="resumed",
        ),
        pytest.param(
            {"result": "ended while the agent was away"},
            "  ended while the agent was away",
            id="nobody-saw-its-end",
        ),
    ],
)
def test_what_is_special_of_a_stop_is_said(more, text):
    stop = {"openedAt": OPENED, "container": "c", "why": "w", "deadlineAt": OPENED}

    assert text in "\n".join(stop_lines({"stops": [stop | more]}))


@pytest.mark.parametrize(
    ("recorded", "lines"),
    [
        pytest.param([], 3, id="not-written-down-yet"),
        pytest.param([{"containerID": "x", "openedAt": OPENED}], 3, id="written-down"),
    ],
)
def test_a_stop_under_way_is_told_once(recorded, lines):
    stop = {"containerID": "x", "container": "c", "beganAt": OPENED, "hookSeconds": 3}

    told = list(stop_lines({"stops": recorded, "stopping": [stop]}))

    assert len(told) == lines
    assert "under way" in told[1]
    assert "PreStop  3.00s" in told[2]


def test_a_pull_tells_rule_candidates_answers_and_the_next_retry():
    pull = {
        "openedAt": OPENED,
        "fieldPath": "spec.containers{app}",
        "image": "reg.test/app:1",
        "policyRule": "Always is set in the Pod",
        "why": "the image is not here",
        "candidates": [
            {"origin": "file f", "key": "reg.test", "why": "fits", "order": 1},
            {"origin": "Secret s", "key": "x", "why": "nearly", "order": None},
        ],
        "unrelatedCredentials": 2,
        "attempts": [
            {"order": 1, "origin": "file f", "key": "reg.test", "error": "401"}
        ],
        "tookSeconds": 0.5,
        "waitedSeconds": 1.25,
        "result": "ErrImagePull",
        "error": "401",
        "nextRetryAt": OPENED,
    }

    assert list(pull_lines({"pulls": [pull]})) == [
        "2026-01-02 03:04:05.678  app",
        "  image       reg.test/app:1",
        "  policy      Always is set in the Pod",
        "  why         the image is not here",
        '  tried 1     file f, key "reg.test": fits',
        "              -> 401",
        '  not tried   Secret s, key "x": nearly',
        "              2 more are for other registries",
        "  result      ErrImagePull after 0.50s and 1.25s in the queue",
        "  next retry  2026-01-02 03:04:05.678, or when credentials change",
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"kind": "value"}, "env"),
        ({"kind": "secretKeyRef", "name": "s", "key": "k"}, "env, Secret s key k"),
        (
            {"kind": "configMapKeyRef", "name": "c", "key": "k"},
            "env, ConfigMap c key k",
        ),
        ({"kind": "configMapRef", "name": "c"}, "envFrom, ConfigMap c"),
        ({"kind": "secretRef", "name": "s"}, "envFrom, Secret s"),
        ({"kind": "fieldRef", "fieldPath": "status.podIP"}, "env, field status.podIP"),
        ({"kind": "resourceFieldRef", "resource": "a.b"}, "env, resource a.b"),
        (
            {"kind": "fileKeyRef", "volumeName": "v", "path": "f", "key": "k"},
            "env, file v/f key k",
        ),
        ({"kind": "service", "name": "db"}, "Service db"),
        ({"kind": "image"}, "image"),
    ],
)
def test_a_source_is_told_in_words(source, text):
    assert source_text(source) == text


def test_variables_are_a_table_and_secrets_stay_hidden():
    variables = [
        {"name": "A", "value": "x\ny", "source": {"kind": "value"}, "uses": ["B"]},
        {"name": "B", "hidden": ["s"], "source": {"kind": "secretRef", "name": "s"}},
        {"name": "F", "hidden": ["a file"], "source": {"kind": "value"}},
        {"name": "E", "error": "gone", "source": {"kind": "value"}},
        {
            "name": "O",
            "value": "1",
            "source": {"kind": "value"},
            "overrode": [{"kind": "service", "name": "db"}, {"kind": "image"}],
        },
    ]
    found = {"environment": [{"container": "c", "variables": variables}]}

    text = "\n".join(env_lines(found))

    assert "A x\\ny env, with B" in " ".join(text.split())
    assert "(hidden: Secret s)" in text
    assert "(hidden: a file)" in text
    assert "(error: gone)" in text
    assert text.endswith("Service db; image")
    assert "no such container" in "\n".join(env_lines(found, container="x"))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        pytest.param({}, "A new env", id="same"),
        pytest.param(
            {"running": "other", "runningValue": "old"},
            "A new (running: old) env",
            id="older",
        ),
        pytest.param(
            {"running": "other"}, "A new (running: another value) env", id="hidden"
        ),
        pytest.param(
            {"running": "absent"}, "A new (not in the running one) env", id="absent"
        ),
    ],
)
def test_the_running_container_is_told_beside(more, text):
    variable = {"name": "A", "value": "new", "source": {"kind": "value"}}
    one = {"container": "c", "running": True, "variables": [variable | more]}

    table = "\n".join(env_lines({"environment": [one]})).splitlines()

    assert table[0].endswith("beside the one that runs")
    assert " ".join(table[2].split()) == text


def test_a_schedule_names_sources_and_lacks():
    found = {
        "verdict": "a is chosen of 1 that fit",
        "runtimeClass": {"name": "k", "exists": True, "handler": "kata"},
        "requests": {
            "containers": {"cpu": "1"},
            "overhead": {"cpu": "250m"},
            "total": {"cpu": "1250m"},
            "overheadFrom": "RuntimeClass k",
        },
        "constraints": [{"kind": "nodeSelector", "text": "a=b", "from": "the Pod"}],
        "nodes": [
            {"name": "a", "here": True, "lacks": []},
            {"name": "b", "here": False, "lacks": ["one", "two"]},
        ],
    }

    lines = "\n".join(schedule_lines(found)).splitlines()

    assert lines[1] == "class     k (handler kata)"
    assert lines[3] == "overhead  cpu 250m, from RuntimeClass k"
    assert "nodeSelector   a=b     the Pod" in lines
    assert "b      no               one" in lines
    assert "                        two" in lines


@pytest.mark.parametrize(
    ("found", "text"),
    [
        pytest.param({"gone": True}, "gone; only records are left", id="gone"),
        pytest.param(
            {"admission": {"admitted": False, "reason": "OutOfcpu", "message": "no"}},
            "admitted    no, OutOfcpu: no",
            id="rejected",
        ),
        pytest.param(
            {"runtimeClass": {"class": "k", "error": "not found"}},
            "class       k (not found)",
            id="class-gone",
        ),
        pytest.param(
            {
                "story": {
                    "stage": "SYNC",
                    "syncs": [
                        {
                            "at": OPENED,
                            "observed": {
                                "containers": [{"name": "c", "state": "RUNNING"}]
                            },
                            "actions": {
                                "kill_pod": True,
                                "create_sandbox": True,
                                "start": [{"container": "d"}],
                            },
                            "results": ["d: ErrImagePull"],
                        }
                    ],
                }
            },
            "saw c running: create sandbox; start d\n      d: ErrImagePull",
            id="story",
        ),
    ],
)
def test_a_pod_is_told_in_short(found, text):
    base = {"metadata": {"namespace": "ns", "name": "p"}, "node": "n"}

    assert text in "\n".join(pod_lines(base | found))


@pytest.mark.parametrize("lines", [pull_lines, stop_lines])
def test_nothing_is_said_to_be_nothing(lines):
    (text,) = lines({})

    assert text.startswith("no ")


def test_a_delivery_is_a_row():
    hook = {
        "openedAt": OPENED,
        "container": "c",
        "hook": "PreStop",
        "handler": "exec",
        "attempt": 2,
        "result": "failed",
        "tookSeconds": 1.5,
        "error": "the command exited with 3",
    }

    assert list(hook_rows([hook, {"openedAt": OPENED}])) == [
        (
            "2026-01-02 03:04:05.678",
            "c",
            "PreStop",
            "exec",
            "2",
            "failed",
            "1.50s",
            "the command exited with 3",
        ),
        ("2026-01-02 03:04:05.678", "", "", "", "", "under way", "-", ""),
    ]
