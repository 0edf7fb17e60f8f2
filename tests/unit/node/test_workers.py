"""One task per Pod: woken, ordered about, and crashing alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.cri.services import CRIUnavailableError
from podyard.node.sync.pod import PodEnding, Stage
from podyard.node.workers import PodWorkers
from support.pods import LoopClock, pod_document


class Life:
    """A life that notes its steps and does in them what a test says."""

    def __init__(self, pod: Pod, wake: Callable[[float], None]) -> None:
        self.pod = pod
        self.stage = Stage.SYNC
        self.wake = wake
        self.steps: list[float] = []
        self.orders: list[str] = []
        self.again_s: float | None = None
        self.crash: Exception | None = None

    def update(self, pod: Pod) -> bool:
        self.pod = pod
        self.orders.append("update")
        return "quiet" not in pod.metadata.labels

    def end(self, ending: PodEnding) -> None:
        self.orders.append(f"end {ending.why}")

    def remove(self) -> None:
        self.orders.append("remove")
        self.stage = Stage.PURGED

    def park(self, grace_s: float) -> None:
        self.stage = Stage.PARKED

    def retry_now(self) -> None:
        self.orders.append("retry")

    def describe(self) -> Document:
        return {}

    async def step(self) -> float | None:
        self.steps.append(asyncio.get_running_loop().time())
        if self.crash is not None:
            crash, self.crash = self.crash, None
            raise crash
        return self.again_s


class Crew:
    """Workers of such lives."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.gone: list[str] = []
        self.again_s: float | None = None
        self.crash: Exception | None = None
        self.workers: PodWorkers

    def make(
        self, pod: Pod, group: asyncio.TaskGroup, wake: Callable[[float], None]
    ) -> Life:
        life = Life(pod, wake)
        life.again_s = self.again_s
        life.crash, self.crash = self.crash, None
        self.lives.append(life)
        return life

    def update(self, name: str = "a", **metadata: object) -> None:
        document = pod_document(name=name)
        document["metadata"] |= metadata
        self.workers.update(Pod.of(document))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Crew"]:
        async with asyncio.TaskGroup() as group:
            self.workers = PodWorkers(
                group,
                self.make,
                LoopClock(),
                lambda: 0.0,
                on_gone=lambda pod: self.gone.append(pod.uid),
            )
            yield self
            for task in asyncio.all_tasks():
                if task.get_name().startswith("pod-"):
                    task.cancel()


async def test_a_pod_is_looked_at_once_and_then_left_alone() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1000)

        assert len(crew.lives[0].steps) == 1


async def test_a_step_says_when_the_next_one_is_due() -> None:
    crew = Crew()
    crew.again_s = 60
    async with crew.running():
        crew.update()
        await asyncio.sleep(200)

        assert len(crew.lives[0].steps) == 4


async def test_many_wishes_at_once_are_one_step() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)
        for _ in range(100):
            crew.workers.wake("uid-a")
        crew.update(labels={"x": "y"})
        await asyncio.sleep(1)

        assert len(crew.lives[0].steps) == 2
        assert crew.lives[0].pod.metadata.labels == {"x": "y"}


async def test_news_of_nothing_wake_nobody() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)
        crew.update(labels={"quiet": ""})
        await asyncio.sleep(1)

        assert len(crew.lives[0].steps) == 1


async def test_a_later_wish_does_not_put_off_an_earlier_one() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)
        life = crew.lives[0]
        life.wake(5)
        life.wake(50)
        await asyncio.sleep(10)

        assert [round(s) for s in life.steps] == [0, 6]


async def test_a_crash_stays_with_its_pod_and_its_orders_are_kept() -> None:
    crew = Crew()
    crew.crash = RuntimeError("a bug")
    async with crew.running():
        crew.update("a")
        crew.workers.end("uid-a", PodEnding("evicted"))
        crew.update("b")
        await asyncio.sleep(5)

        names = [life.pod.name for life in crew.lives]
        assert names == ["a", "b", "a"]
        assert crew.lives[2].orders == ["end evicted"]
        assert len(crew.lives[2].steps) == 1


async def test_a_runtime_away_is_asked_again_ever_more_rarely() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)
        life = crew.lives[0]
        for _ in range(5):
            life.crash = CRIUnavailableError("x", "UNAVAILABLE", "away")
            crew.workers.wake("uid-a")
            await asyncio.sleep(0.1)
        await asyncio.sleep(100)

        assert len(crew.lives) == 1
        assert len(life.steps) == 7


async def test_a_pod_that_is_gone_leaves_no_worker() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)
        crew.workers.remove("uid-a")
        await asyncio.sleep(1)

        assert crew.gone == ["uid-a"]
        assert "uid-a" not in crew.workers


async def test_a_parked_pod_is_waited_for_and_remembered() -> None:
    async with Crew().running() as crew:
        crew.update()
        await asyncio.sleep(1)

        await crew.workers.park(("uid-a", "uid-stranger"), 5)

        assert crew.gone == []
        assert "uid-a" in crew.workers
