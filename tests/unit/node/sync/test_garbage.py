"""What may be removed, as a table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podyard.api.observed import (
    ContainerState,
    ContainerStatus,
    PodSandbox,
    SandboxState,
)
from podyard.api.runtime import Label
from podyard.node.pleg.decide import Look
from podyard.node.sync.garbage.collector import GarbageCollector
from podyard.node.sync.garbage.decide import decide_garbage
from podyard.node.sync.observe import Observer
from support.pods import SmallNode, inline, pod_document
from support.pods import container as pod_container

AT = datetime(2026, 1, 1, tzinfo=UTC)
EXITED, RUNNING = ContainerState.EXITED, ContainerState.RUNNING
CREATED = ContainerState.CREATED


def container(
    number: int, state: ContainerState = EXITED, *, name: str = "c", box: str = "s0"
) -> ContainerStatus:
    return ContainerStatus(
        f"{name}{number}",
        name,
        box,
        number,
        state,
        AT + timedelta(minutes=number),
        labels={Label.POD_UID: "u"},
    )


def sandbox(number: int, *, ready: bool = False) -> PodSandbox:
    state = SandboxState.READY if ready else SandboxState.NOT_READY
    made = PodSandbox(f"s{number}", "p", "d", "u", number, state, AT)
    return replace(
        made,
        created_at=AT + timedelta(minutes=number),
        labels={Label.POD_UID: "u"},
    )


@pytest.mark.parametrize(
    ("sandboxes", "containers", "gone"),
    [
        pytest.param(
            (sandbox(0, ready=True),), (container(0, RUNNING),), [], id="alive"
        ),
        pytest.param(
            (sandbox(0, ready=True),),
            (container(0), container(1, RUNNING)),
            [],
            id="one-dead-is-kept",
        ),
        pytest.param(
            (sandbox(0, ready=True),),
            (container(0), container(1), container(2, RUNNING)),
            ["c0"],
            id="the-newest-dead-is-kept",
        ),
        pytest.param(
            (sandbox(0, ready=True),),
            (container(0), container(1)),
            ["c0"],
            id="while-it-waits-to-start-again",
        ),
        pytest.param(
            (sandbox(0, ready=True),),
            (container(0), container(1, CREATED)),
            [],
            id="one-being-started",
        ),
        pytest.param(
            (sandbox(0, ready=True),),
            (container(0, CREATED), container(1, RUNNING)),
            ["c0"],
            id="stillborn",
        ),
        pytest.param(
            (sandbox(0), sandbox(1, ready=True)),
            (container(1, RUNNING, box="s1"),),
            ["s0"],
            id="an-old-empty-sandbox",
        ),
        pytest.param(
            (sandbox(0), sandbox(1, ready=True)),
            (container(0), container(1, RUNNING, box="s1")),
            [],
            id="an-old-sandbox-with-the-last-dead",
        ),
        pytest.param((sandbox(0),), (), [], id="the-newest-sandbox-stays"),
    ],
)
def test_of_a_pod_that_lives_on(
    sandboxes: tuple[PodSandbox, ...],
    containers: tuple[ContainerStatus, ...],
    gone: list[str],
) -> None:
    garbage = decide_garbage(
        sandboxes, containers, known=lambda _: True, sources_ready=True
    )

    assert [c.id for c in garbage.containers] + [
        s.id for s in garbage.sandboxes
    ] == gone
    assert garbage.orphans == ()


def test_a_pod_nobody_knows_is_an_orphan_once_every_source_has_spoken() -> None:
    def orphans(*, ready: bool) -> tuple[str, ...]:
        return decide_garbage(
            (sandbox(0, ready=True),),
            (container(0, RUNNING),),
            known=lambda _: False,
            sources_ready=ready,
        ).orphans

    assert orphans(ready=False) == ()
    assert orphans(ready=True) == ("u",)


async def test_an_orphan_is_ended_in_two_seconds_and_gets_no_hook(
    tmp_path: Path,
) -> None:
    node = SmallNode(tmp_path)
    async with node.running():
        hook = {"exec": {"command": ["true"]}}
        app = pod_container(
            "app", "trap '' TERM; sleep 1000", lifecycle={"preStop": hook}
        )
        node.apply(pod_document(app))
        await node.phase_becomes("web", "Running")
    collector = GarbageCollector(
        node.runtime,
        Observer(node.runtime, node.files, inline),
        node.files,
        volumes=node.volumes,
        cgroups=node.cgroups,
        known=lambda _: False,
        blocking=inline,
    )
    began_s = node.clock.monotonic_s()
    look = Look.of(
        await node.runtime.list_pod_sandboxes(),
        await node.runtime.list_containers(),
        at_s=began_s,
    )

    await collector.collect(look, sources_ready=True)

    assert node.clock.monotonic_s() - began_s == pytest.approx(2, abs=0.5)
    assert await node.runtime.list_containers() == ()
    assert await node.runtime.list_pod_sandboxes() == ()
    assert node.hooks.told == []
