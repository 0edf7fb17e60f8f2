"""The control socket: how ``podyard status`` and ``podyard down`` reach the program.

A unix socket only root can open; JSON over HTTP. GET /status, POST /stop.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from aiohttp import web

from podyard.api.documents import Document

#: grace in seconds, whether Pods keep running → when all is stopped
Stop = Callable[[float | None, bool], None]


class AlreadyRunningError(Exception):
    """Another program serves this instance."""


class ControlSocket:
    """Serves one instance's control socket."""

    def __init__(
        self, path: Path, *, status: Callable[[], Awaitable[Document]], stop: Stop
    ) -> None:
        self._path = path
        self._status = status
        self._stop = stop
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. A socket file left by a dead program is replaced.

        Raises:
            AlreadyRunningError: a program answers there.
        """
        if await self._is_answered():
            raise AlreadyRunningError(str(self._path))
        app = web.Application()
        app.router.add_get("/status", self._get_status)
        app.router.add_post("/stop", self._post_stop)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        await web.UnixSite(self._runner, str(self._path)).start()
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and take the socket file away."""
        if self._runner is not None:
            await self._runner.cleanup()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _is_answered(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            return False
        writer.close()
        return True

    async def _get_status(self, _request: web.Request) -> web.Response:
        body = orjson.dumps(await self._status(), default=str)
        return web.Response(body=body, content_type="application/json")

    async def _post_stop(self, request: web.Request) -> web.Response:
        wish = orjson.loads(await request.read() or b"{}")
        grace_s = wish.get("graceSeconds")
        grace_s = None if grace_s is None else float(grace_s)
        keep_pods = bool(wish.get("keepPods", False))
        # Answer first: the stop takes this very socket away.
        asyncio.get_running_loop().call_soon(self._stop, grace_s, keep_pods)
        return web.json_response({"stopping": True})
