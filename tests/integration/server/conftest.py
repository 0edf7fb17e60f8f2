"""A server with the namespace ``default``."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_server import NAMESPACE, Running, api_server


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Running]:
    async with api_server(tmp_path) as running:
        await running.make(NAMESPACE, {"metadata": {"name": "default"}})
        yield running
