"""ServiceAccount tokens, issued and verified."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from podyard.api.errors import ApiError
from podyard.api.scheme import NODE, POD, SERVICE_ACCOUNT
from podyard.app.pki import ISSUER, Names, ensure_pki
from podyard.server.authn.tokens import ServiceAccountTokens, TokenKeys
from support.stored_objects import StoredObjects, make

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return (self.at - NOW).total_seconds()

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TokenKeys:
    directory: Path = tmp_path_factory.mktemp("pki")
    key = ensure_pki(directory, Names("n1"), now=NOW).service_accounts
    return TokenKeys(key.private_pem, key.public_pem, key.key_id, ISSUER, (ISSUER,))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects() -> StoredObjects:
    return StoredObjects(
        make("ServiceAccount", "app", "web"),
        make("ServiceAccount", "other", "web"),
        make("Pod", "p1", "web", spec={"serviceAccountName": "app", "nodeName": "n1"}),
        make("Node", "n1"),
        make("Secret", "s1", "web"),
    )


@pytest.fixture
def tokens(
    keys: TokenKeys, objects: StoredObjects, clock: Clock
) -> ServiceAccountTokens:
    return ServiceAccountTokens(keys, objects, clock, new_id=lambda: "id-1")


def _request(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": spec,
    }


def _claims(answer: dict[str, Any]) -> dict[str, Any]:
    token = answer["status"]["token"]
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


POD_REF = {"apiVersion": "v1", "kind": "Pod", "name": "p1", "uid": "uid-p1"}


async def test_a_plain_token_lives_an_hour_for_the_api_server(
    tokens: ServiceAccountTokens, keys: TokenKeys
) -> None:
    answer = await tokens.issue("web", "app", _request())

    claims = _claims(answer)
    assert claims == {
        "iss": ISSUER,
        "sub": "system:serviceaccount:web:app",
        "aud": [ISSUER],
        "iat": int(NOW.timestamp()),
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 3600,
        "jti": "id-1",
        "kubernetes.io": {
            "namespace": "web",
            "serviceaccount": {"name": "app", "uid": "uid-app"},
        },
    }
    assert answer["status"]["expirationTimestamp"] == "2026-05-01T13:00:00Z"
    assert answer["spec"]["expirationSeconds"] == 3600
    assert answer["metadata"]["uid"] == "uid-app"
    header = jwt.get_unverified_header(answer["status"]["token"])
    assert header["kid"] == keys.key_id
    assert header["alg"] == "ES256"


async def test_the_projected_token_of_a_pod_lives_a_year_and_warns(
    tokens: ServiceAccountTokens,
) -> None:
    answer = await tokens.issue(
        "web", "app", _request(expirationSeconds=3607, boundObjectRef=POD_REF)
    )

    claims = _claims(answer)
    now = int(NOW.timestamp())
    assert claims["exp"] == now + 365 * 24 * 3600
    assert claims["kubernetes.io"] == {
        "namespace": "web",
        "serviceaccount": {"name": "app", "uid": "uid-app"},
        "pod": {"name": "p1", "uid": "uid-p1"},
        "node": {"name": "n1", "uid": "uid-n1"},
        "warnafter": now + 3607,
    }
    assert answer["status"]["expirationTimestamp"] == "2026-05-01T13:00:07Z"


@pytest.mark.parametrize(
    ("name", "request_", "code", "message"),
    [
        pytest.param(
            "nobody",
            _request(),
            404,
            'serviceaccounts "nobody" not found',
            id="no-account",
        ),
        pytest.param(
            "app",
            _request(expirationSeconds=599),
            422,
            'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: '
            "Invalid value: 599: may not specify a duration less than 10 minutes",
            id="too-short",
        ),
        pytest.param(
            "app",
            _request(expirationSeconds=(1 << 32) + 1),
            422,
            'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: '
            "Invalid value: 4294967297: may not specify a duration larger than 2^32 "
            "seconds",
            id="too-long",
        ),
        pytest.param(
            "other",
            _request(boundObjectRef=POD_REF),
            400,
            'cannot bind token for serviceaccount "other" to pod running with '
            "different serviceaccount name.",
            id="another-account's-pod",
        ),
        pytest.param(
            "app",
            _request(boundObjectRef={**POD_REF, "uid": "old"}),
            409,
            'Operation cannot be fulfilled on Pod "p1": the UID in the bound object '
            "reference (old) does not match the UID in record. The object might have "
            "been deleted and then recreated",
            id="another-pod",
        ),
        pytest.param(
            "app",
            _request(boundObjectRef={**POD_REF, "name": "p9"}),
            404,
            'pods "p9" not found',
            id="no-pod",
        ),
        pytest.param(
            "app",
            _request(boundObjectRef={"apiVersion": "v1", "kind": "ConfigMap"}),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
            id="another-kind",
        ),
        pytest.param(
            "app",
            _request(boundObjectRef={**POD_REF, "apiVersion": "apps/v1"}),
            400,
            "cannot bind token to object of type apps/v1, Kind=Pod",
            id="another-group",
        ),
        pytest.param(
            "app",
            {**_request(), "metadata": {"uid": "old"}},
            409,
            'Operation cannot be fulfilled on TokenRequest.authentication.k8s.io "app": '
            "the UID in the token request (old) does not match the UID of the service "
            "account (uid-app)",
            id="another-uid",
        ),
        pytest.param(
            "app",
            {**_request(), "metadata": {"name": "else"}},
            422,
            'TokenRequest.authentication.k8s.io "app" is invalid: metadata.name: '
            'Invalid value: "else": must match the service account name if specified',
            id="another-name",
        ),
    ],
)
async def test_bad_requests_are_refused(
    tokens: ServiceAccountTokens,
    name: str,
    request_: dict[str, Any],
    code: int,
    message: str,
) -> None:
    with pytest.raises(ApiError) as refusal:
        await tokens.issue("web", name, request_)

    assert (refusal.value.code, refusal.value.message) == (code, message)


async def test_a_token_tells_its_user(tokens: ServiceAccountTokens) -> None:
    answer = await tokens.issue("web", "app", _request(boundObjectRef=POD_REF))

    user = await tokens.authenticate_token(answer["status"]["token"])

    assert user is not None
    assert user.name == "system:serviceaccount:web:app"
    assert user.uid == "uid-app"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:web")
    assert user.extra == {
        "authentication.kubernetes.io/pod-name": ("p1",),
        "authentication.kubernetes.io/pod-uid": ("uid-p1",),
        "authentication.kubernetes.io/node-name": ("n1",),
        "authentication.kubernetes.io/node-uid": ("uid-n1",),
        "authentication.kubernetes.io/credential-id": ("JTI=id-1",),
    }


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "reference"),
    [
        pytest.param(SERVICE_ACCOUNT, "web", "app", None, id="account"),
        pytest.param(POD, "web", "p1", POD_REF, id="pod"),
        pytest.param(
            NODE,
            "",
            "n1",
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1"},
            id="node",
        ),
    ],
)
@pytest.mark.parametrize("how", ["deleted", "replaced", "terminating"])
async def test_a_token_ends_with_what_it_is_bound_to(
    tokens: ServiceAccountTokens,
    objects: StoredObjects,
    clock: Clock,
    kind: Any,
    namespace: str,
    name: str,
    reference: dict[str, Any] | None,
    how: str,
) -> None:
    answer = await tokens.issue("web", "app", _request(boundObjectRef=reference))
    token = answer["status"]["token"]
    assert await tokens.authenticate_token(token) is not None

    document = objects.documents[(kind, namespace, name)]
    if how == "deleted":
        objects.remove(kind, namespace, name)
    elif how == "replaced":
        objects.put({**document, "metadata": {**document["metadata"], "uid": "new"}})
    else:
        deleted = {**document["metadata"], "deletionTimestamp": "2026-05-01T11:58:59Z"}
        objects.put({**document, "metadata": deleted})
    clock.advance(6)

    assert await tokens.authenticate_token(token) is None


async def test_a_verified_token_is_trusted_for_seconds(
    tokens: ServiceAccountTokens, objects: StoredObjects, clock: Clock
) -> None:
    token = (await tokens.issue("web", "app", _request()))["status"]["token"]
    await tokens.authenticate_token(token)
    looked = objects.gets

    clock.advance(4)
    await tokens.authenticate_token(token)

    assert objects.gets == looked


@pytest.mark.parametrize(
    ("seconds", "good"), [(3599, True), (3600, False)], ids=["before", "at-its-end"]
)
async def test_a_token_ends_in_time(
    tokens: ServiceAccountTokens, clock: Clock, seconds: int, good: bool
) -> None:
    token = (await tokens.issue("web", "app", _request()))["status"]["token"]

    clock.advance(seconds)

    assert (await tokens.authenticate_token(token) is not None) is good


async def test_a_token_is_for_its_audience_only(tokens: ServiceAccountTokens) -> None:
    answer = await tokens.issue("web", "app", _request(audiences=["vault"]))
    token = answer["status"]["token"]

    assert await tokens.authenticate_token(token) is None
    assert await tokens.authenticate_token(token, ("vault", "x")) is not None
    assert tokens.token_audiences(token) == ("vault",)


async def test_forged_tokens_are_no_good(
    tokens: ServiceAccountTokens, keys: TokenKeys
) -> None:
    token = (await tokens.issue("web", "app", _request()))["status"]["token"]
    claims = _claims({"status": {"token": token}})
    head, body, signature = token.split(".")
    unsigned = jwt.encode(claims, None, algorithm="none")  # type: ignore[arg-type]
    symmetric = jwt.encode(claims, "x" * 32, algorithm="HS256")
    elsewhere = jwt.encode({**claims, "iss": "me"}, keys.private_pem, "ES256")

    for bad in (
        unsigned,
        symmetric,
        elsewhere,
        f"{head}.{body}.{'A' * len(signature)}",
        f"{head}.{body}",
        "rubbish",
        "",
    ):
        assert await tokens.authenticate_token(bad) is None


def test_others_can_verify_with_the_published_key(
    tokens: ServiceAccountTokens, keys: TokenKeys
) -> None:
    published = tokens.key_set()["keys"][0]

    assert published["kid"] == keys.key_id
    assert jwt.PyJWK(published).algorithm_name == "ES256"
    told = tokens.openid_configuration("https://box:6443")
    assert told["issuer"] == ISSUER
    assert told["jwks_uri"] == "https://box:6443/openid/v1/jwks"


def test_the_signing_key_is_not_shown(keys: TokenKeys) -> None:
    assert "PRIVATE" not in repr(keys)
