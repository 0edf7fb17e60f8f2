"""How far pulls are, and what is told of it."""

import asyncio

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.node.credentials.decide import Credential
from podyard.node.credentials.manager import LookedUp
from podyard.node.credentials.parts import NodeFiles
from podyard.node.credentials.watch import NodeFileWatch
from podyard.node.images.build import build_progress_text
from podyard.node.images.manager import ImageManager
from podyard.node.images.parts import ImageError, PullProgress
from podyard.node.images.pulls import ImageSettings

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("others", "text"),
    [
        (0, 'Pulling image "i:1": 1.0 of 2.5 MiB'),
        (1, 'Pulling image "i:1": 1.0 of 2.5 MiB (with 1 other pull)'),
        (2, 'Pulling image "i:1": 1.0 of 2.5 MiB (with 2 other pulls)'),
    ],
)
def test_progress_is_told_in_mebibytes(others, text):
    assert build_progress_text("i:1", MIB, 5 * MIB // 2, others=others) == text


class SlowImages:
    """A runtime whose pulls take twelve seconds."""

    async def image_status(self, image):
        return Image("sha256:1")

    async def pull_image(self, image, *, auth, sandbox=None, handler=""):
        await asyncio.sleep(12)
        return "sha256:1"


class Ticks:
    """Tells one MiB more each second."""

    running = 0

    async def watch(self, tell):
        self.running += 1
        try:
            for done in range(100):
                await asyncio.sleep(1)
                tell(PullProgress(done * MIB, 100 * MIB))
        finally:
            self.running -= 1


class NoCredentials:
    async def look_up(self, pod, repository):
        return LookedUp((), ())


class NoEvents:
    def __init__(self):
        self.told = []

    def event(self, document, event_type, reason, message, *, field_path=""):
        self.told.append(reason)


class LoopClock:
    def monotonic_s(self):
        return asyncio.get_running_loop().time()


async def test_progress_is_told_every_five_seconds_and_ends_with_the_pull():
    events, ticks, heard = NoEvents(), Ticks(), []
    manager = ImageManager(
        SlowImages(), NoCredentials(), events, LoopClock(), progress=ticks
    )
    manager.on_progress(lambda uid: heard.append(manager.progress_of(uid, "i:1")))
    container = {"name": "c", "image": "i:1", "imagePullPolicy": "Always"}
    pod = Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [container]},
        }
    )

    await manager.ensure_image(
        pod, pod.spec.containers[0], SandboxConfig("p", "ns", "u"), ""
    )

    assert heard == [
        f'Pulling image "i:1": {done}.0 of 100.0 MiB' for done in (0, 5, 10)
    ]
    assert manager.progress_of("u", "i:1") == ""
    assert ticks.running == 0
    assert events.told == ["Pulling", "Pulled"]


def wanting(image, uid="u"):
    container = {"name": "c", "image": image, "imagePullPolicy": "Always"}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": uid},
            "spec": {"containers": [container]},
        }
    )


async def ensure(manager, pod):
    return await manager.ensure_image(
        pod, pod.spec.containers[0], SandboxConfig("p", "ns", "u"), ""
    )


async def test_a_pod_that_joins_a_pull_hears_of_all_of_it():
    ticks = Ticks()
    manager = ImageManager(
        SlowImages(), NoCredentials(), NoEvents(), LoopClock(), progress=ticks
    )

    async with asyncio.TaskGroup() as group:
        group.create_task(ensure(manager, wanting("i:1")))
        await asyncio.sleep(6.5)
        group.create_task(ensure(manager, wanting("i:1", "joined")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        told = manager.progress_of("joined", "i:1")
        watches = ticks.running

    assert told == 'Pulling image "i:1": 5.0 of 100.0 MiB'
    assert watches == 1


async def test_a_pull_that_waits_for_its_turn_is_not_told_of_others():
    manager = ImageManager(
        SlowImages(), NoCredentials(), NoEvents(), LoopClock(), progress=Ticks()
    )

    async with asyncio.TaskGroup() as group:
        group.create_task(ensure(manager, wanting("i:1", "first")))
        await asyncio.sleep(0.5)
        group.create_task(ensure(manager, wanting("i:2", "second")))
        await asyncio.sleep(5)
        first = manager.progress_of("first", "i:1")
        second = manager.progress_of("second", "i:2")

    assert first == 'Pulling image "i:1": 4.0 of 100.0 MiB'
    assert second == ""


class StuckImages:
    """A runtime whose pulls never end by themselves."""

    def __init__(self):
        self.pulls, self.cancelled = 0, 0

    async def image_status(self, image):
        return None

    async def pull_image(self, image, *, auth, sandbox=None, handler=""):
        self.pulls += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1


class Steps:
    """Tells what it was given, a step a second, and then no more."""

    def __init__(self, *steps):
        self._steps = steps

    async def watch(self, tell):
        for step in self._steps:
            await asyncio.sleep(1)
            tell(step)
        await asyncio.Event().wait()


class TwoCredentials:
    async def look_up(self, pod, repository):
        return LookedUp(
            tuple(
                Credential(ImageAuth(username=name, password="pass"), "r.io", "test")
                for name in ("a", "b")
            ),
            (),
        )


@pytest.mark.parametrize(
    ("steps", "ends_after_s"),
    [
        pytest.param((), 30, id="nothing-ever-comes"),
        pytest.param(
            (PullProgress(1, 9), PullProgress(2, 9), PullProgress(2, 9)),
            32,
            id="nothing-comes-any-more",
        ),
        pytest.param(
            (PullProgress(9, 9), PullProgress(9, 12)), 32, id="another-layer-is-found"
        ),
    ],
)
async def test_a_pull_that_gets_nothing_any_more_ends(steps, ends_after_s):
    stuck, events = StuckImages(), NoEvents()
    manager = ImageManager(
        stuck,
        TwoCredentials(),
        events,
        LoopClock(),
        settings=ImageSettings(progress_timeout_s=30),
        progress=Steps(*steps),
    )
    began_s = LoopClock().monotonic_s()

    with pytest.raises(ImageError) as caught:
        await ensure(manager, wanting("i:1"))

    assert LoopClock().monotonic_s() - began_s == pytest.approx(ends_after_s, abs=0.1)
    assert caught.value.reason == "ErrImagePull"
    assert caught.value.message == (
        "no byte has come from the registry for 30s (imagePullProgressTimeout)"
    )
    assert (stuck.pulls, stuck.cancelled) == (1, 1)
    assert events.told == ["Pulling", "Failed", "Failed"]
    assert manager.pulls_in_flight == 0


@pytest.mark.parametrize(
    ("timeout_s", "steps"),
    [
        pytest.param(30, (PullProgress(9, 9),), id="all-is-here-and-is-unpacked"),
        pytest.param(0, (), id="switched-off"),
    ],
)
async def test_a_pull_may_take_its_time(timeout_s, steps):
    stuck = StuckImages()
    manager = ImageManager(
        stuck,
        NoCredentials(),
        NoEvents(),
        LoopClock(),
        settings=ImageSettings(progress_timeout_s=timeout_s),
        progress=Steps(*steps),
    )

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4000):
            await ensure(manager, wanting("i:1"))

    assert stuck.pulls == 1


async def test_waiting_pods_hear_of_a_changed_file_and_others_do_not(tmp_path):
    waiting, heard = set(), []
    file = tmp_path / "config.json"
    watch = NodeFileWatch(NodeFiles((file,)), lambda: waiting)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run(heard.append))
        await asyncio.sleep(3.5)
        file.write_text("{}")
        await asyncio.sleep(2)
        before = list(heard)
        waiting.add("u")
        await asyncio.sleep(2)
        file.write_text('{"auths": {}}')
        await asyncio.sleep(2)
        task.cancel()

    assert before == []
    assert heard == ["u"]
