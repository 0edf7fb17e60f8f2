"""A token server for Debian's registry: users, what each may pull, identity tokens.

Source: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/.
"""

import base64
import http.server
import json
import ssl
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from podyard.lib.clock import SystemClock
from support.certificates import Pair


@dataclass(frozen=True)
class Asked:
    """A question for a token.

    Attributes:
        who: the user, ``""`` for nobody.
        how: ``anonymous``, ``basic``, ``password`` or ``refresh_token``.
        scopes: what the token was to be good for.
        granted: whether it was given.
    """

    who: str
    how: str
    scopes: tuple[str, ...]
    granted: bool


@dataclass(frozen=True)
class Account:
    """A user.

    Attributes:
        password: of the user; nobody has the empty one.
        repositories: patterns of what may be pulled.
        identity_token: good instead of the password; empty for none.
    """

    password: str
    repositories: tuple[str, ...]
    identity_token: str = ""


@dataclass
class TokenServer:
    """A token server that runs.

    Attributes:
        realm: its address.
        accounts: by user; that of ``""`` is for everybody.
        asked: every question, in order.
    """

    realm: str
    accounts: Mapping[str, Account]
    signer: Pair
    asked: list[Asked] = field(default_factory=list)

    def who(self, headers: Mapping[str, str], form: Mapping[str, str]) -> str | None:
        """Return the user, or ``None`` where the credentials are wrong."""
        if form.get("grant_type") == "refresh_token":
            wanted = form.get("refresh_token")
            users = (
                user
                for user, account in self.accounts.items()
                if account.identity_token and account.identity_token == wanted
            )
            return next(users, None)
        if form.get("grant_type") == "password":
            return self._check(form.get("username", ""), form.get("password", ""))
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        if not scheme:
            return ""
        user, _, password = base64.b64decode(value).decode().partition(":")
        return self._check(user, password)

    def _check(self, user: str, password: str) -> str | None:
        account = self.accounts.get(user)
        good = account is not None and user and account.password == password
        return user if good else None

    def token(self, user: str, scopes: tuple[str, ...]) -> str:
        """Return a token for as much of what was asked as the user may."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, _actions = rest.rpartition(":")
            allowed = [
                pattern
                for who in {user, ""} & self.accounts.keys()
                for pattern in self.accounts[who].repositories
            ]
            if any(fnmatch(name, pattern) for pattern in allowed):
                access.append({"type": kind, "name": name, "actions": ["pull"]})
        now = int(SystemClock().now().timestamp())
        claims = {
            "iss": "test",
            "aud": "test",
            "sub": user,
            "iat": now,
            "nbf": now - 10,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        certificate = x509.load_pem_x509_certificate(self.signer.cert.encode())
        der = certificate.public_bytes(serialization.Encoding.DER)
        headers = {"x5c": [base64.b64encode(der).decode()]}
        return jwt.encode(claims, self.signer.key, algorithm="ES256", headers=headers)


@contextmanager
def token_server(
    accounts: Mapping[str, Account], *, signer: Pair, leaf: Pair | None = None
) -> Iterator[TokenServer]:
    """Run a token server on 127.0.0.1.

    Args:
        accounts: by user; that of ``""`` is for everybody.
        signer: signs tokens; the registry trusts its certificate's authority.
        leaf: makes it speak TLS.
    """
    server = TokenServer("", accounts, signer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            scopes = " ".join(query.get("scope", [])).split()
            how = "basic" if self.headers.get("Authorization") else "anonymous"
            self._answer({}, tuple(scopes), how, "token")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            form = {key: value[0] for key, value in parse_qs(body.decode()).items()}
            scopes = tuple(form.get("scope", "").split())
            self._answer(form, scopes, form.get("grant_type", ""), "access_token")

        def _answer(
            self, form: dict[str, str], scopes: tuple[str, ...], how: str, key: str
        ) -> None:
            user = server.who(self.headers, form)
            server.asked.append(Asked(user or "", how, scopes, user is not None))
            status, body = 401, {"details": "incorrect username or password"}
            if user is not None:
                status, body = 200, {key: server.token(user, scopes), "expires_in": 300}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    if leaf is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(leaf.cert + leaf.key)
            file.flush()
            context.load_cert_chain(file.name)
        listener.socket = context.wrap_socket(
            listener.socket, server_side=True, do_handshake_on_connect=False
        )
    port = listener.server_address[1]
    server.realm = f"{'https' if leaf else 'http'}://127.0.0.1:{port}/token"
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
