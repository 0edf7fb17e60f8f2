"""ServiceAccount tokens: kept, renewed at 80 %, outliving an API that is away."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from podyard.api.core_v1 import Pod
from podyard.client.services import ApiUnreachableError
from podyard.node.volumes.parts import SetUpError
from podyard.node.volumes.tokens import TokenManager


class LoopClock:
    """The loop's own time, which jumps in these tests."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


@dataclass
class TokenApi:
    life_s: float | None = 1000.0
    names: list[str] = field(default_factory=list)
    is_away: bool = False

    async def create_subresource(self, kind, name, subresource, document, namespace=""):
        if self.is_away:
            raise ApiUnreachableError("connection refused", server="x")
        assert (kind.kind, subresource) == ("ServiceAccount", "token")
        self.names.append(f"{namespace}/{name}")
        status = {"token": f"t{len(self.names)}"}
        if self.life_s is not None:
            ends_at = LoopClock().now() + timedelta(seconds=self.life_s)
            status["expirationTimestamp"] = ends_at.isoformat()
        return {"status": status}


def make_pod(uid="u", account=""):
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": uid},
            "spec": {"containers": [], "serviceAccountName": account},
        }
    )


@pytest.fixture
def api():
    return TokenApi()


@pytest.fixture
def tokens(api):
    return TokenManager(api, LoopClock())


async def get(tokens, pod=None, audience="", expiration_s=1000):
    issued = await tokens.get(
        pod or make_pod(), audience=audience, expiration_s=expiration_s
    )
    return issued.text


async def test_a_token_is_asked_once(api, tokens):
    assert [await get(tokens) for _ in range(3)] == ["t1"] * 3
    assert api.names == ["ns/default"]


async def test_other_audiences_lives_and_pods_have_other_tokens(api, tokens):
    asked = [
        await get(tokens),
        await get(tokens, audience="vault"),
        await get(tokens, expiration_s=600),
        await get(tokens, make_pod("other")),
        await get(tokens, make_pod(account="robot")),
    ]

    assert asked == ["t1", "t2", "t3", "t4", "t5"]
    assert api.names[-1] == "ns/robot"


@pytest.mark.parametrize("life_s", [1000.0, None], ids=["told", "as-asked"])
async def test_a_token_is_renewed_at_four_fifths_of_its_life(api, tokens, life_s):
    api.life_s = life_s
    issued = await tokens.get(make_pod(), audience="", expiration_s=1000)

    assert 790 <= issued.refresh_at_s - LoopClock().monotonic_s() <= 800
    await asyncio.sleep(780)
    assert await get(tokens) == "t1"
    await asyncio.sleep(30)
    assert await get(tokens) == "t2"


async def test_a_long_lived_token_is_renewed_after_a_day(api, tokens):
    api.life_s = 10 * 86400.0

    issued = await tokens.get(make_pod(), audience="", expiration_s=10 * 86400)

    assert issued.refresh_at_s - LoopClock().monotonic_s() <= 86400


async def test_an_api_that_is_away_leaves_a_valid_token_in_place(api, tokens):
    await get(tokens)
    api.is_away = True

    await asyncio.sleep(900)
    assert await get(tokens) == "t1"
    await asyncio.sleep(200)
    with pytest.raises(
        SetUpError, match=r"^failed to fetch token: connection refused$"
    ):
        await get(tokens)


async def test_a_pod_that_is_gone_leaves_no_token(api, tokens):
    await get(tokens)

    tokens.forget("u")

    assert await get(tokens) == "t2"


async def test_tokens_show_in_no_repr(tokens):
    issued = await tokens.get(make_pod(), audience="", expiration_s=1000)

    assert "t1" not in repr(issued)
