"""ServiceAccount tokens: issued, verified, and what others need to verify them.

Source: kubernetes ``pkg/serviceaccount`` and
``pkg/registry/core/serviceaccount/storage/token.go`` (v1.36);
https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

import base64
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    FieldError,
    bad_request,
    conflict,
    invalid,
    invalid_object,
    not_found,
)
from podyard.api.identity import (
    User,
    service_account_groups,
    service_account_user_name,
)
from podyard.api.scheme import NODE, POD, SECRET, SERVICE_ACCOUNT, Kind
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass

#: The life of a token that asks for none, seconds.
DEFAULT_LIFE_S: Final = 3600
#: The shortest life a token may ask for, seconds.
SHORTEST_LIFE_S: Final = 600
#: What the ServiceAccount admission asks for; such tokens live for a year, so that
#: clients that never read the file again go on working, and carry ``warnafter``.
PROJECTED_LIFE_S: Final = 3607
#: How long they live instead, seconds.
EXTENDED_LIFE_S: Final = 365 * 24 * 3600
#: A deleted object's tokens are good for this much longer, seconds.
DELETION_LEEWAY_S: Final = 60
#: How long a verified token is not looked at again, seconds.
TRUST_S: Final = 5.0

_BOUND: Final = {"Pod": POD, "Node": NODE, "Secret": SECRET}
_CREDENTIALS: Final = "authentication.kubernetes.io"


class Lookup(Protocol):
    """The objects tokens are bound to, as they are stored now."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it is absent."""


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """What signs and verifies.

    Attributes:
        private_pem: the signing key, P-256.
        public_pem: its public half.
        key_id: the ``kid`` header.
        issuer: the ``iss`` claim.
        audiences: the API server's own; the default of a TokenRequest.
    """

    private_pem: bytes = field(repr=False)
    public_pem: bytes
    key_id: str
    issuer: str
    audiences: tuple[str, ...]


class ServiceAccountTokens:
    """Issues and verifies the tokens of one API server.

    Args:
        keys: what signs and verifies.
        lookup: the objects tokens are bound to.
        clock: tells the time.
        new_id: makes the ``jti`` claim.
    """

    def __init__(
        self,
        keys: TokenKeys,
        lookup: Lookup,
        clock: Clock,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._keys = keys
        self._lookup = lookup
        self._clock = clock
        self._new_id = new_id
        public = load_pem_public_key(keys.public_pem)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        self._public = public
        self._trusted: OrderedDict[bytes, tuple[float, User]] = OrderedDict()
        self._verified: OrderedDict[bytes, dict[str, Any]] = OrderedDict()

    async def issue(self, namespace: str, name: str, request: Document) -> Document:
        """Answer a POST to ``serviceaccounts/NAME/token``.

        Args:
            namespace: the ServiceAccount's namespace.
            name: the ServiceAccount's name.
            request: the ``authentication.k8s.io/v1`` TokenRequest.

        Returns:
            The TokenRequest with its status.

        Raises:
            ApiError: 404 no such account, 400 or 422 a bad request, 409 the account
                or the bound object has another uid.
        """
        _check_metadata(namespace, name, request)
        account = await self._lookup.get(SERVICE_ACCOUNT, namespace, name)
        if account is None:
            raise not_found("", "serviceaccounts", name)
        account_uid = account["metadata"]["uid"]
        _check_uid(name, account_uid, request)
        spec: Document = dict(request.get("spec") or {})
        audiences = [str(a) for a in spec.get("audiences") or self._keys.audiences]
        life_s = _life(spec)
        now = self._clock.now()
        private: Document = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account_uid},
        }
        reference = spec.get("boundObjectRef")
        if reference:
            private.update(await self._bound(namespace, name, reference))
        until_s = life_s
        projected = "pod" in private and life_s == PROJECTED_LIFE_S
        if projected and set(audiences) <= set(self._keys.audiences):
            private["warnafter"] = int(now.timestamp()) + life_s
            until_s = EXTENDED_LIFE_S
        claims = {
            "iss": self._keys.issuer,
            "sub": service_account_user_name(namespace, name),
            "aud": audiences,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(now.timestamp()) + until_s,
            "jti": self._new_id(),
            "kubernetes.io": private,
        }
        token = jwt.encode(
            claims,
            self._keys.private_pem,
            algorithm="ES256",
            headers={"kid": self._keys.key_id},
        )
        expires_at = now.replace(microsecond=0) + timedelta(seconds=life_s)
        spec.update(audiences=audiences, expirationSeconds=life_s)
        spec.setdefault("boundObjectRef", None)
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": account_uid,
                "creationTimestamp": _timestamp(now),
            },
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": _timestamp(expires_at)},
        }

    async def _bound(
        self, namespace: str, account: str, reference: Document
    ) -> Document:
        """Return the private claims of the object a token is bound to."""
        version = str(reference.get("apiVersion") or "")
        kind = _BOUND.get(str(reference.get("kind") or ""))
        if kind is None or "/" in version:
            group = version if "/" in version else f"/{version}"
            what = f"{group}, Kind={reference.get('kind') or ''}"
            raise bad_request(f"cannot bind token to object of type {what}")
        name = str(reference.get("name") or "")
        scope = namespace if kind.namespaced else ""
        bound = await self._lookup.get(kind, scope, name)
        if bound is None:
            raise not_found("", kind.resource, name)
        uid = bound["metadata"]["uid"]
        claims: Document = {kind.singular: {"name": name, "uid": uid}}
        if kind is POD:
            spec = bound.get("spec") or {}
            if spec.get("serviceAccountName") != account:
                raise bad_request(
                    f'cannot bind token for serviceaccount "{account}" to pod running '
                    "with different serviceaccount name."
                )
            if spec.get("nodeName"):
                claims["node"] = await self._node(spec["nodeName"])
        if reference.get("uid") not in {None, "", uid}:
            detail = (
                f"the UID in the bound object reference ({reference['uid']}) does not "
                "match the UID in record. The object might have been deleted and then "
                "recreated"
            )
            raise conflict("", kind.kind, name, detail)
        return claims

    async def _node(self, name: str) -> Document:
        node = await self._lookup.get(NODE, "", name)
        if node is None:
            return {"name": name}
        return {"name": name, "uid": node["metadata"]["uid"]}

    async def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> User | None:
        """Return the token's user, or ``None`` where the token is no good.

        A token is good when we signed it, the present time is within its span, one of
        its audiences is wanted, and its ServiceAccount and the object it is bound to
        still exist with the same uid.

        Args:
            token: the compact JWT.
            audiences: one of them must be the token's; none means the API server's.
        """
        wanted = audiences or self._keys.audiences
        digest = hashlib.sha256("\0".join((token, *wanted)).encode()).digest()
        now_s = self._clock.monotonic_s()
        trusted = self._trusted.get(digest)
        if trusted is not None and now_s < trusted[0]:
            return trusted[1]
        claims = self._verify(token)
        if claims is None or not set(_texts(claims.get("aud"))) & set(wanted):
            return None
        user = await self._user(claims)
        if user is not None:
            _remember(self._trusted, digest, (now_s + TRUST_S, user))
        return user

    def token_audiences(self, token: str) -> tuple[str, ...]:
        """Return the audiences of a token we signed, none where it is no good."""
        claims = self._verify(token)
        return _texts(claims.get("aud")) if claims else ()

    def _verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token we signed, within its span of time."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is None:
            try:
                claims = jwt.decode(
                    token,
                    self._public,
                    algorithms=["ES256"],
                    issuer=self._keys.issuer,
                    options={
                        "require": ["exp", "iss", "sub"],
                        "verify_aud": False,
                        # The times are compared below, with the clock handed in.
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except (jwt.PyJWTError, ValueError):
                return None
            _remember(self._verified, digest, claims)
        now = self._clock.now().timestamp()
        if not _is_number(claims.get("exp")) or now >= claims["exp"]:
            return None
        if _is_number(claims.get("nbf")) and now < claims["nbf"] - DELETION_LEEWAY_S:
            return None
        return claims

    async def _user(self, claims: dict[str, Any]) -> User | None:
        private = claims.get("kubernetes.io")
        if not isinstance(private, dict):
            return None
        namespace = str(private.get("namespace") or "")
        account = private.get("serviceaccount") or {}
        name = str(account.get("name") or "")
        if claims["sub"] != service_account_user_name(namespace, name):
            return None
        if not await self._stands(SERVICE_ACCOUNT, namespace, account):
            return None
        for claim, kind in (("pod", POD), ("secret", SECRET)):
            bound = private.get(claim)
            if bound and not await self._stands(kind, namespace, bound):
                return None
        node = private.get("node")
        if node and "pod" not in private and not await self._stands(NODE, "", node):
            return None
        return User(
            claims["sub"],
            str(account.get("uid") or ""),
            service_account_groups(namespace),
            _extra(claims, private),
        )

    async def _stands(self, kind: Kind, namespace: str, claim: Document) -> bool:
        """Tell whether the very object of a claim is still there."""
        found = await self._lookup.get(kind, namespace, str(claim.get("name") or ""))
        if found is None or found["metadata"].get("uid") != claim.get("uid"):
            return False
        deleted = found["metadata"].get("deletionTimestamp")
        if not deleted:
            return True
        end = datetime.fromisoformat(str(deleted)) + timedelta(
            seconds=DELETION_LEEWAY_S
        )
        return self._clock.now() < end

    def key_set(self) -> Document:
        """Return the JSON Web Key Set at ``/openid/v1/jwks``."""
        numbers = self._public.public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": self._keys.key_id,
                    "crv": "P-256",
                    "alg": "ES256",
                    "x": _coordinate(numbers.x),
                    "y": _coordinate(numbers.y),
                }
            ]
        }

    def openid_configuration(self, server_url: str) -> Document:
        """Return ``/.well-known/openid-configuration``.

        Args:
            server_url: where clients reach the API server, without a path.
        """
        return {
            "issuer": self._keys.issuer,
            "jwks_uri": f"{server_url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def _check_metadata(namespace: str, name: str, request: Document) -> None:
    metadata = request.get("metadata") or {}
    wrong = _differs("name", metadata.get("name"), name) or _differs(
        "namespace", metadata.get("namespace"), namespace
    )
    if wrong is not None:
        raise _invalid_request(name, [wrong])


def _check_uid(name: str, uid: str, request: Document) -> None:
    asked = (request.get("metadata") or {}).get("uid")
    if asked and asked != uid:
        detail = (
            f"the UID in the token request ({asked}) does not match the UID of the "
            f"service account ({uid})"
        )
        raise conflict("authentication.k8s.io", "TokenRequest", name, detail)


def _differs(what: str, given: object, path: str) -> FieldError | None:
    if not given or given == path:
        return None
    detail = f"must match the service account {what} if specified"
    return invalid(f"metadata.{what}", given, detail)


def _life(spec: Document) -> int:
    """Return the seconds a token asks to live."""
    life_s = spec.get("expirationSeconds")
    if life_s is None:
        return DEFAULT_LIFE_S
    detail = ""
    if not isinstance(life_s, int) or life_s < SHORTEST_LIFE_S:
        detail = "may not specify a duration less than 10 minutes"
    elif life_s > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
    if detail:
        raise _invalid_request("", [invalid("spec.expirationSeconds", life_s, detail)])
    return int(life_s)


def _invalid_request(name: str, errors: Sequence[FieldError]) -> ApiError:
    return invalid_object("authentication.k8s.io", "TokenRequest", name, errors)


def _extra(claims: Document, private: Document) -> dict[str, tuple[str, ...]]:
    extra: dict[str, tuple[str, ...]] = {}
    for claim in ("pod", "node"):
        bound = private.get(claim) or {}
        for key in ("name", "uid"):
            if bound.get(key):
                extra[f"{_CREDENTIALS}/{claim}-{key}"] = (str(bound[key]),)
    if claims.get("jti"):
        extra[f"{_CREDENTIALS}/credential-id"] = (f"JTI={claims['jti']}",)
    return extra


def _remember(
    cache: OrderedDict[bytes, Any], key: bytes, value: object, *, most: int = 1024
) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(text for text in value if isinstance(text, str))
    return ()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
