"""What registries say: addresses, challenges, tokens, errors; read, never believed.

Sources: RFC 9110 (challenges, ``Retry-After``), the distribution specification
(errors) and the token protocol of the Docker registry.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import orjson

from podyard.api.documents import Document
from podyard.lib.values import dataclass

# -- origins ---------------------------------------------------------------------

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what "the same server" means."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = _DEFAULT_PORTS.get(self.scheme) == self.port
        return f"{self.scheme}://{host}" + ("" if standard else f":{self.port}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can be behind it."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_origin(url: str) -> Origin:
    """Return the origin of an absolute ``http`` or ``https`` URL.

    Raises:
        ValueError: it is no such URL, or carries a user name.
    """
    parts = _split_url(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL carries a user name")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("the URL has no valid port") from error
    assert parts.hostname is not None
    host = parts.hostname.lower().rstrip(".")
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])


def _split_url(url: str) -> SplitResult:
    if "\\" in url or any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("the URL holds characters no URL has")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("this is no absolute http or https URL")
    return parts


def show_url(url: str) -> str:
    """Return a URL for messages: without user name, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a malformed URL)"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return cut(urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", "")))


# -- challenges ------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: More than a token: realm=https://host/path without quotes is seen in the wild.
_UNQUOTED: Final = re.compile(r"[^\s,\"]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a registry wants to be asked.

    Attributes:
        scheme: ``basic`` or ``bearer``, in lower case.
        parameters: ``realm``, ``service``, ``scope``, ``error``; names in lower case.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def realm(self) -> str:
        """The realm; for ``bearer`` the URL tokens come from."""
        return self.parameters.get("realm", "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of all ``WWW-Authenticate`` headers.

    Several may stand in one header. What follows no grammar ends that header: half
    a challenge is never guessed at.
    """
    return tuple(item for header in headers for item in _parse_header(header))


def _parse_header(header: str) -> Iterable[Challenge]:
    at = 0
    while True:
        at = _skip(header, at)
        scheme = _TOKEN.match(header, at)
        if scheme is None:
            return
        at = scheme.end()
        parameters: dict[str, str] = {}
        while True:
            read = _parameter(header, _skip(header, at))
            if read is None:
                break
            name, value, at = read
            parameters.setdefault(name, value)
        yield Challenge(scheme[0].lower(), parameters)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t,":
        at += 1
    return at


def _parameter(text: str, at: int) -> tuple[str, str, int] | None:
    name = _TOKEN.match(text, at)
    if name is None:
        return None
    end = name.end()
    while text[end : end + 1] in {" ", "\t"}:
        end += 1
    if text[end : end + 1] != "=":
        return None  # a new scheme begins here
    end += 1
    while text[end : end + 1] in {" ", "\t"}:
        end += 1
    quoted = _QUOTED.match(text, end)
    if quoted is not None:
        return name[0].lower(), re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    plain = _UNQUOTED.match(text, end)
    return (name[0].lower(), plain[0], plain.end()) if plain else None


# -- tokens and spans -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; its repr hides it.

    Attributes:
        lives_s: seconds it may be used for, from when it was asked for.
    """

    value: str = field(repr=False)
    lives_s: float = 60.0


def parse_token(body: bytes) -> Token:
    """Read a token server's answer.

    Raises:
        ValueError: there is no token in it.
    """
    document = json_object(body)
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("there is no token in the answer")
    lives = document.get("expires_in")
    if isinstance(lives, bool) or not isinstance(lives, int | float) or lives <= 0:
        lives = 60
    return Token(value, float(lives))


def parse_retry_after(text: str, *, now: datetime) -> float | None:
    """Return seconds from a ``Retry-After`` header; ``None`` where it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, (at - now).total_seconds())


# -- the registry's own words ----------------------------------------------------

_MAX_WORDS: Final = 256


def cut(text: str, limit: int = _MAX_WORDS) -> str:
    """Return a stranger's text fit for one line: printable, and not too long."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


def registry_words(body: bytes, content_type: str) -> str:
    """Return what a registry says about an error, from the body it sent; or nothing."""
    if looks_like_html(body, content_type):
        return ""
    try:
        document = json_object(body)
    except ValueError:
        text = body[: _MAX_WORDS * 2].decode(errors="replace")
        return cut(text) if content_type.startswith("text/plain") else ""
    errors = document.get("errors")
    told = [
        ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    if not any(told):
        keys = ("error_description", "details", "message", "error")
        told = [str(document[key]) for key in keys if document.get(key)][:1]
    return cut("; ".join(text for text in told if text))


def looks_like_html(body: bytes, content_type: str) -> bool:
    """Say whether an answer is a web page, as captive portals send it."""
    if content_type.partition(";")[0].strip().lower() == "text/html":
        return True
    head = body[:256].lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html"))


def json_object(data: bytes) -> Document:
    """Return a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document
