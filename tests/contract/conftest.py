"""Both sides of the CRI contract: the fake, and a real private containerd."""

from collections.abc import AsyncIterator, Iterator

import pytest

from podyard.testing.fake_cri import FakeRuntime
from support.containerd import (
    BUSYBOX,
    RunningContainerd,
    connect,
    running_containerd,
)
from support.runtimes import Subject


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    """One private containerd for a module's tests."""
    with running_containerd(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture(
    params=["fake", pytest.param("containerd", marks=pytest.mark.integration)]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each runtime in turn; what a test leaves running is removed."""
    if request.param == "fake":
        fake = FakeRuntime(host_files=True)
        fake.add_image(BUSYBOX)
        yield Subject(fake, fake, None)
        return
    running: RunningContainerd = request.getfixturevalue("containerd")
    async with connect(running) as services:
        yield Subject(services.runtime, services.images, running)
        for sandbox in await services.runtime.list_pod_sandboxes():
            await services.runtime.stop_pod_sandbox(sandbox.id)
            await services.runtime.remove_pod_sandbox(sandbox.id)
