"""Who is told from which credentials."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import podyard.server.authn.sources
from podyard.api.errors import ApiError
from podyard.api.identity import User
from podyard.app.pki import Names, ensure_pki
from podyard.lib.parts import load_parts
from podyard.server.authn.certificates import parse_peer
from podyard.server.authn.chain import AuthenticationChain
from podyard.server.authn.parts import (
    AuthenticationContext,
    Authenticator,
    Credentials,
    PeerCertificate,
)


class OneToken:
    async def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> User | None:
        if token != "good":
            return None
        return User("system:serviceaccount:a:b", groups=("system:serviceaccounts",))


@pytest.fixture
def chain() -> AuthenticationChain:
    parts = load_parts(podyard.server.authn.sources, Authenticator)
    return AuthenticationChain(parts, AuthenticationContext(OneToken()))


def _protocol(token: str) -> str:
    text = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return f"base64url.bearer.authorization.k8s.io.{text}"


def test_certificates_come_before_tokens_before_nobody(
    chain: AuthenticationChain,
) -> None:
    assert chain.names == ("client-cert", "service-account-token", "anonymous")


PEER = PeerCertificate("jane", ("dev", "ops"))
SA = "system:serviceaccount:a:b"


@pytest.mark.parametrize(
    ("credentials", "name", "groups"),
    [
        pytest.param(
            Credentials("/api/v1/pods", PEER),
            "jane",
            ("dev", "ops", "system:authenticated"),
            id="certificate",
        ),
        pytest.param(
            Credentials("/api/v1/pods", PEER, "Bearer bad"),
            "jane",
            ("dev", "ops", "system:authenticated"),
            id="a-certificate-wins-over-a-token",
        ),
        pytest.param(
            Credentials("/api/v1/pods", None, "bearer good"),
            SA,
            ("system:serviceaccounts", "system:authenticated"),
            id="token",
        ),
        pytest.param(
            Credentials("/x", None, "", ("v4.channel.k8s.io", _protocol("good"))),
            SA,
            ("system:serviceaccounts", "system:authenticated"),
            id="websocket-token",
        ),
        pytest.param(
            Credentials("/healthz"),
            "system:anonymous",
            ("system:unauthenticated",),
            id="health",
        ),
        pytest.param(
            Credentials("/version/"),
            "system:anonymous",
            ("system:unauthenticated",),
            id="version-with-slash",
        ),
    ],
)
async def test_users_are_told(
    chain: AuthenticationChain,
    credentials: Credentials,
    name: str,
    groups: tuple[str, ...],
) -> None:
    user = await chain.authenticate(credentials)

    assert (user.name, user.groups) == (name, groups)


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(Credentials("/api/v1/pods"), id="nothing"),
        pytest.param(Credentials("/api"), id="discovery-needs-somebody"),
        pytest.param(Credentials("/healthz/etcd"), id="below-health"),
        pytest.param(Credentials("/metrics"), id="metrics"),
        pytest.param(Credentials("/version", None, "Bearer bad"), id="bad-token"),
        pytest.param(Credentials("/version", None, "Basic Zm9v"), id="other-scheme"),
        pytest.param(Credentials("/version", None, "Bearer"), id="no-token"),
        pytest.param(
            Credentials("/version", None, "", (_protocol("bad"),)), id="bad-protocol"
        ),
        pytest.param(
            Credentials(
                "/version", None, "", ("base64url.bearer.authorization.k8s.io.%%",)
            ),
            id="no-base64",
        ),
        pytest.param(
            Credentials("/version", None, "", (_protocol("good"), _protocol("good"))),
            id="two-tokens",
        ),
    ],
)
async def test_bad_or_no_credentials_are_401(
    chain: AuthenticationChain, credentials: Credentials
) -> None:
    with pytest.raises(ApiError) as refusal:
        await chain.authenticate(credentials)

    assert (refusal.value.code, refusal.value.message) == (401, "Unauthorized")


def test_the_subject_of_a_certificate_is_read(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, Names("n1"), now=datetime(2026, 5, 1, tzinfo=UTC))
    certificate = x509.load_pem_x509_certificate(pki.node_client.certificate_pem)

    peer = parse_peer(certificate.public_bytes(Encoding.DER))

    assert peer is not None
    assert peer.common_name == "system:node:n1"
    assert peer.organizations == ("system:nodes",)
    assert len(peer.fingerprint) == 64
