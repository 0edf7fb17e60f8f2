"""Memory of a burst goes back to the machine."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from podyard.app.memory import MemoryKeeper, _own_bytes

pytestmark = pytest.mark.integration

#: Together 60 MB, of pieces the allocator keeps for itself when they are free.
PIECES = 30_000
PIECE_BYTES = 2_000


@pytest.fixture(autouse=True)
def own_collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def test_what_a_burst_needed_is_given_back_once_there_is_calm() -> None:
    burst = [bytes([number % 256]) * PIECE_BYTES for number in range(PIECES)]
    # What stays here and there keeps the allocator from giving back by itself.
    kept = burst[:: PIECES // 50]
    del burst
    before = await asyncio.to_thread(_own_bytes)

    MemoryKeeper(asyncio.get_running_loop(), every_s=0.2).start()

    async with asyncio.timeout(60):
        while await asyncio.to_thread(_own_bytes) > before - PIECES * PIECE_BYTES / 2:
            await asyncio.sleep(0.1)
    assert len(kept) == 50
