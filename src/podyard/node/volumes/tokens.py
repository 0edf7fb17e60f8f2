"""ServiceAccount tokens for Pods: asked once, renewed at 80 % of their life.

Source: https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
"""

import random
from datetime import timedelta
from typing import Final

import structlog

from podyard.api.core_v1 import Pod, parse_time
from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.client.services import ApiClient, ApiUnreachableError
from podyard.lib.clock import Clock
from podyard.node.volumes.parts import IssuedToken, SetUpError

log = structlog.get_logger()

#: The part of its life after which a token is renewed.
RENEW_AT: Final = 0.8
#: A token is renewed after this long at the latest, seconds.
MAX_AGE_S: Final = timedelta(hours=24).total_seconds()
#: When a renewal failed, how long until the next try, seconds.
RETRY_S: Final = 15.0
_MAX_JITTER_S: Final = 10.0


class TokenManager:
    """Asks the API for tokens bound to a Pod and keeps them in memory.

    Args:
        client: the API.
        clock: tells when a token must be renewed.
        seed: of the jitter that keeps renewals apart.
    """

    def __init__(self, client: ApiClient, clock: Clock, *, seed: int = 0) -> None:
        self._client = client
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - jitter, no secret
        self._tokens: dict[tuple[str, str, str, int], IssuedToken] = {}
        self._ends_at_s: dict[tuple[str, str, str, int], float] = {}

    async def get(self, pod: Pod, *, audience: str, expiration_s: int) -> IssuedToken:
        """Return a token for the Pod's ServiceAccount, the same until renewal.

        Args:
            pod: the Pod it is bound to.
            audience: whom it is for; empty is the API server.
            expiration_s: how long it shall live.

        Raises:
            SetUpError: the API gave none and there is no valid older one.
        """
        account = pod.spec.service_account_name or "default"
        key = (pod.uid, account, audience, expiration_s)
        known = self._tokens.get(key)
        now_s = self._clock.monotonic_s()
        if known is not None and now_s < known.refresh_at_s:
            return known
        try:
            answer = await self._request(pod, account, audience, expiration_s)
        except (ApiError, ApiUnreachableError) as error:
            if known is not None and now_s < self._ends_at_s[key]:
                log.warning("token_renewal_failed", pod=pod.full_name, error=str(error))
                later = IssuedToken(known.text, now_s + RETRY_S)
                self._tokens[key] = later
                return later
            raise SetUpError(f"failed to fetch token: {error}") from error
        status = answer.get("status") or {}
        life_s = self._life_s(status, expiration_s)
        jitter_s = self._random.uniform(0, min(_MAX_JITTER_S, life_s * 0.05))
        wait_s = min(life_s * RENEW_AT, MAX_AGE_S) - jitter_s
        issued = IssuedToken(str(status.get("token") or ""), now_s + wait_s)
        self._tokens[key] = issued
        self._ends_at_s[key] = now_s + life_s
        return issued

    def forget(self, uid: str) -> None:
        """Drop the tokens of a Pod."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key], self._ends_at_s[key]

    def _life_s(self, status: Document, asked_s: int) -> float:
        ends_at = parse_time(status.get("expirationTimestamp"))
        if ends_at is None:
            return float(asked_s)
        left_s = (ends_at - self._clock.now()).total_seconds()
        return max(left_s, 1.0)

    async def _request(
        self, pod: Pod, account: str, audience: str, expiration_s: int
    ) -> Document:
        request: Document = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": pod.namespace},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": expiration_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.name,
                    "uid": pod.uid,
                },
            },
        }
        return await self._client.create_subresource(
            SERVICE_ACCOUNT, account, "token", request, pod.namespace
        )
