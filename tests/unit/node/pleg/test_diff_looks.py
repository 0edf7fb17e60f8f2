"""Two looks at a node → what happened in between."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    PodSandbox,
    SandboxState,
)
from podyard.api.runtime import Label
from podyard.node.pleg.decide import Look, diff_looks

AT = datetime(2026, 1, 1, tzinfo=UTC)
C = ContainerStatus(
    "c", "c", "s", 0, ContainerState.RUNNING, AT, labels={Label.POD_UID: "u"}
)
S = PodSandbox(
    "s", "p", "d", "u", 0, SandboxState.READY, AT, labels={Label.POD_UID: "u"}
)
DEAD = replace(C, state=ContainerState.EXITED)


def look(*containers: ContainerStatus, sandboxes: tuple[PodSandbox, ...] = ()) -> Look:
    return Look.of(sandboxes, containers, at_s=0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(look(C), look(C), [], id="nothing"),
        pytest.param(look(), look(C), ["ContainerStarted"], id="started"),
        pytest.param(look(C), look(DEAD), ["ContainerDied"], id="died"),
        pytest.param(
            look(C), look(), ["ContainerDied", "ContainerRemoved"], id="died-unseen"
        ),
        pytest.param(look(DEAD), look(), ["ContainerRemoved"], id="removed"),
        pytest.param(
            look(C),
            look(replace(C, state=ContainerState.UNKNOWN)),
            ["ContainerChanged"],
            id="unknown",
        ),
        pytest.param(
            look(sandboxes=(S,)),
            look(sandboxes=(replace(S, state=SandboxState.NOT_READY),)),
            ["ContainerDied"],
            id="sandbox-died",
        ),
    ],
)
def test_what_happened(before: Look, after: Look, expected: list[str]) -> None:
    events = diff_looks(before, after)

    assert [event.type.value for event in events] == expected
    assert {event.uid for event in events} <= {"u"}


def test_a_look_knows_whose_a_container_is() -> None:
    assert look(C).uid_of("c") == "u"
    assert look(C).uid_of("stranger") == ""
    assert look(C).uids == {"u"}
