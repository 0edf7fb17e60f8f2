"""How far pulls are, and what is told of it."""

import asyncio

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import Image
from podyard.api.runtime import SandboxConfig
from podyard.node.credentials.manager import LookedUp
from podyard.node.credentials.parts import NodeFiles
from podyard.node.credentials.watch import NodeFileWatch
from podyard.node.images.build import build_progress_text
from podyard.node.images.manager import ImageManager
from podyard.node.images.parts import PullProgress

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
