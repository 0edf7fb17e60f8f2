"""An API server alone on loopback, in clear, where everybody is the admin."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp

from podyard import KUBERNETES_VERSION
from podyard.api.identity import User
from podyard.api.openapi import OpenApiDocuments
from podyard.api.schema import Schemas
from podyard.app.schema_data import load_schema_data
from podyard.lib.clock import SystemClock
from podyard.server.app import ApiServer, Gates, Listener, ServerConfig
from podyard.server.authn.parts import Credentials
from podyard.server.build import RequestInfo
from podyard.store.sqlite import SqliteStore, open_store

JSON = {"Content-Type": "application/json"}


class Everybody:
    """Lets everybody in as the admin, and do everything."""

    async def authenticate(self, credentials: Credentials) -> User:
        return User("admin", groups=("system:masters", "system:authenticated"))

    async def check(self, user: User, info: RequestInfo) -> None:
        return None


@lru_cache
def schemas() -> tuple[Schemas, OpenApiDocuments]:
    """Return the definitions, read once for all tests."""
    definitions = load_schema_data()["definitions"]
    return Schemas(definitions), OpenApiDocuments(definitions, KUBERNETES_VERSION)


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: ApiServer
    store: SqliteStore
    url: str
    session: aiohttp.ClientSession
    kubeconfig: Path

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **headers: str,
    ) -> Answer:
        """Send one request; bytes go as they are, all else as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None and content_type:
            sent["Content-Type"] = content_type
        async with self.session.request(
            method,
            self.url + path,
            data=None if data is None else io.BytesIO(data),
            headers=sent,
            skip_auto_headers=["Content-Type"],
        ) as answer:
            return Answer(answer.status, await answer.read(), answer.headers)

    async def make(self, path: str, body: object) -> Any:
        """Create an object that must be accepted; return it."""
        answer = await self.ask("POST", path, body)
        assert answer.status == 201, answer.body
        return answer.json


@asynccontextmanager
async def api_server(
    directory: Path, config: ServerConfig | None = None, gates: Gates | None = None
) -> AsyncIterator[Running]:
    """Run an API server over a store in ``directory`` while the body runs."""
    known, openapi = schemas()
    clock = SystemClock()
    async with open_store(directory / "store.db", clock=clock) as store:
        server = ApiServer(
            config or ServerConfig(),
            store=store,
            schemas=known,
            openapi=openapi,
            clock=clock,
        )
        server.use(gates or Gates(Everybody(), Everybody()))
        (bound,) = await server.start([Listener("127.0.0.1", 0, tls=False)])
        url = f"http://127.0.0.1:{bound.port}"
        try:
            async with aiohttp.ClientSession() as session:
                yield Running(server, store, url, session, _kubeconfig(directory, url))
        finally:
            await server.stop()


def _kubeconfig(directory: Path, url: str) -> Path:
    path = directory / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [
                    {
                        "name": "x",
                        "context": {
                            "cluster": "c",
                            "user": "u",
                            "namespace": "default",
                        },
                    }
                ],
                "current-context": "x",
            }
        )
    )
    return path


NAMESPACE = "/api/v1/namespaces"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """Return a Pod with one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "registry/i:1"}], **spec},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    """Return a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": data,
    }
