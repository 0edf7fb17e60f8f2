"""What is served beside the kinds: health, version, metrics, OpenAPI, keys."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Final

import orjson

from podyard import KUBERNETES_VERSION, __version__
from podyard.api.documents import Document
from podyard.api.openapi import V2_PROTOBUF, OpenApiDocument, OpenApiDocuments
from podyard.lib import metrics
from podyard.lib.values import dataclass
from podyard.server.build import RequestInfo
from podyard.server.call import JSON_TYPE, Reply

#: A named condition of the server; empty means fine, a text what is wrong.
Check = Callable[[], str]

_TEXT: Final = "text/plain; charset=utf-8"
_PATHS: Final = (
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/version",
)


@dataclass(frozen=True, slots=True)
class Site:
    """The answers for paths that are no kinds.

    Attributes:
        openapi: the documents, ``None`` where there are no schemas.
        checks: what ``/readyz`` looks at; ``/livez`` and ``/healthz`` too, but for
            those in ``ready_only``.
        ready_only: the checks that only readiness depends on.
        read_metrics: returns everything ``/metrics`` shows.
        openid_configuration: the issuer's document, or ``None``.
        key_set: the issuer's keys, or ``None``.
    """

    openapi: OpenApiDocuments | None
    checks: Mapping[str, Check]
    read_metrics: Callable[[], bytes]
    ready_only: frozenset[str] = frozenset()
    openid_configuration: Callable[[], Document] | None = None
    key_set: Callable[[], Document] | None = None
    started_at: datetime = field(default=datetime(1970, 1, 1, tzinfo=UTC))

    def answer(self, info: RequestInfo, headers: Mapping[str, str]) -> Reply | None:
        """Answer a path, or return ``None`` where it is none of ours."""
        match info.path.strip("/").split("/"):
            case [""]:
                return _json({"paths": self._paths()})
            case ["version"]:
                return _json(self._version())
            case ["healthz" | "livez" | "readyz" as kind, *names] if len(names) < 2:
                return self._health(info, kind, names[0] if names else "")
            case ["metrics"]:
                return Reply(self.read_metrics(), content_type=metrics.CONTENT_TYPE)
            case ["openapi", *rest]:
                return self._openapi(info, rest, headers)
            case [".well-known", "openid-configuration"] if self.openid_configuration:
                return _json(self.openid_configuration())
            case ["openid", "v1", "jwks"] if self.key_set:
                body = orjson.dumps(self.key_set())
                return Reply(body, content_type="application/jwk-set+json")
            case _:
                return None

    def _paths(self) -> list[str]:
        checks = [f"/readyz/{name}" for name in self.checks]
        return sorted([*_PATHS, *checks])

    def _version(self) -> Document:
        major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".", 2)
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"{KUBERNETES_VERSION}+podyard.{__version__}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": self.started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation(),
            "platform": f"linux/{_architecture()}",
        }

    # -- health

    def _health(self, info: RequestInfo, kind: str, name: str) -> Reply | None:
        checks = {
            key: check
            for key, check in self.checks.items()
            if kind == "readyz" or key not in self.ready_only
        }
        if name:
            if name not in checks:
                return None
            checks = {name: checks[name]}
        excluded = info.query.get("exclude", ())
        results = {key: check() for key, check in checks.items() if key not in excluded}
        is_well = not any(results.values())
        if is_well and "verbose" not in info.query:
            return Reply(b"ok", content_type=_TEXT)
        lines = [
            f"[-]{key} failed: {why}" if why else f"[+]{key} ok"
            for key, why in results.items()
        ]
        lines.append(f"{kind} check {'passed' if is_well else 'failed'}")
        text = "\n".join(lines) + "\n"
        return Reply(text.encode(), 200 if is_well else 500, _TEXT)

    # -- OpenAPI

    def _openapi(
        self, info: RequestInfo, rest: list[str], headers: Mapping[str, str]
    ) -> Reply | None:
        if self.openapi is None:
            return None
        match rest:
            case ["v3"]:
                return _tagged(self.openapi.index(), headers, JSON_TYPE)
            case ["v3", *parts]:
                document = self.openapi.v3("/".join(parts))
                if document is None:
                    return None
                return self._hashed(document, info, headers)
            case ["v2"]:
                # Asked for by an old name as well, whose "@" Go's own parser refuses.
                if "proto-openapi" in headers.get("Accept", ""):
                    return _tagged(self.openapi.v2_protobuf(), headers, V2_PROTOBUF)
                return _tagged(self.openapi.v2_json(), headers, JSON_TYPE)
            case _:
                return None

    def _hashed(
        self, document: OpenApiDocument, info: RequestInfo, headers: Mapping[str, str]
    ) -> Reply:
        asked = info.param("hash")
        if asked and asked != document.hash:
            location = f"{info.path}?hash={document.hash}"
            return Reply(b"", 301, JSON_TYPE, {"Location": location})
        reply = _tagged(document, headers, JSON_TYPE)
        if not asked:
            return reply
        forever = {
            "Cache-Control": "public, immutable",
            "Expires": "Tue, 19 Jan 2038 03:14:07 GMT",
        }
        return Reply(
            reply.body, reply.status, reply.content_type, {**reply.headers, **forever}
        )


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _json(document: Document) -> Reply:
    return Reply(orjson.dumps(document))


def _tagged(document: OpenApiDocument, headers: Mapping[str, str], media: str) -> Reply:
    tag = f'"{document.hash}"'
    if headers.get("If-None-Match") == tag:
        return Reply(b"", 304, media, {"ETag": tag})
    return Reply(document.body, 200, media, {"ETag": tag, "Vary": "Accept"})
