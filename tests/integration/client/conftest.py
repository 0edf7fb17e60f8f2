"""A stub of an API server and a client for it."""

import random
from collections.abc import AsyncIterator

import pytest

from podyard.client.connection import ApiConnection
from podyard.client.http import HttpApiClient
from support.stub_api import StubApi, serving


@pytest.fixture
async def api() -> AsyncIterator[StubApi]:
    async with serving(StubApi()) as started:
        yield started


@pytest.fixture
async def client(api: StubApi) -> AsyncIterator[HttpApiClient]:
    async with HttpApiClient(ApiConnection(api.url)) as opened:
        yield opened


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)
