"""Registries for tests: the fake one, Debian's real one, and pushes to either."""

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest

from podyard.containerd.archives import (
    OCI_INDEX,
    OCI_MANIFEST,
    ImageArchive,
    digest_of,
    to_json,
)
from podyard.containerd.own_images import ImageSpec, RootfsFile, build_archive
from support.certificates import Pair

_REGISTRY = shutil.which("docker-registry")

needs_registry = pytest.mark.skipif(
    _REGISTRY is None, reason="docker-registry is not installed"
)


@dataclass(frozen=True)
class Server:
    """A registry that runs.

    Attributes:
        host: host and port, as image names have them.
        users: names and passwords; none lets everybody.
        ca: the authority of its certificate, as PEM; plain HTTP without.
    """

    host: str
    users: Mapping[str, str] = field(default_factory=dict)
    ca: str = ""

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def real_registry(
    directory: Path,
    *,
    users: Mapping[str, str] | None = None,
    authority: Pair | None = None,
    leaf: Pair | None = None,
    token_realm: str = "",
    token_cert: Path | None = None,
    port: int = 0,
) -> Iterator[Server]:
    """Run Debian's registry in a directory of the test.

    Args:
        directory: for its data, config and log; what is there is served again.
        users: who may, by basic authentication.
        authority: signed ``leaf``; both make it speak TLS.
        leaf: its certificate, for 127.0.0.1.
        token_realm: a token server, instead of ``users``.
        token_cert: signs its tokens.
        port: on which to listen; a free one by default.
    """
    assert _REGISTRY is not None
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "for-tests"}
    if authority is not None and leaf is not None:
        cert, key = directory / "tls.crt", directory / "tls.key"
        cert.write_text(leaf.cert)
        key.write_text(leaf.key)
        http["tls"] = {"certificate": str(cert), "key": str(key)}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": http,
    }
    if token_realm:
        config["auth"] = {
            "token": {
                "realm": token_realm,
                "service": "test",
                "issuer": "test",
                "rootcertbundle": str(token_cert),
            }
        }
    elif users:
        passwords = directory / "htpasswd"
        passwords.write_text("".join(_htpasswd(u, p) for u, p in users.items()))
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
    file = directory / "config.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (directory / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            [_REGISTRY, "serve", str(file)], stdout=log, stderr=log, env=environment
        )
    try:
        _wait_listening(port, process, directory / "registry.log")
        ca = authority.cert if authority is not None else ""
        yield Server(f"127.0.0.1:{port}", dict(users or {}), ca)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _htpasswd(user: str, password: str) -> str:
    made = subprocess.run(
        ["htpasswd", "-niB", "-C", "4", user],
        input=password,
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.strip() + "\n"


def _wait_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import time

    for _ in range(500):
        if process.poll() is not None:
            raise RuntimeError(f"docker-registry ended: {log.read_text()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"docker-registry does not listen: {log.read_text()[-2000:]}")


def small_image(
    name: str, *, content: bytes = b"hello\n", architecture: str = ""
) -> ImageArchive:
    """Return an image of one file, for this machine or another architecture."""
    spec = ImageSpec(
        name, {"hello.txt": RootfsFile(0o644, content)}, {"Cmd": ["/hello.txt"]}
    )
    archive = build_archive(spec)
    if not architecture:
        return archive
    target = archive.targets[name]
    with archive.blobs[target.digest].open() as source:
        manifest = json.load(source)
    with archive.blobs[manifest["config"]["digest"]].open() as source:
        config = json.load(source)
    config["architecture"] = architecture
    return _with_config(archive, name, manifest, to_json(config))


def _with_config(
    archive: ImageArchive, name: str, manifest: dict[str, object], config: bytes
) -> ImageArchive:
    from podyard.containerd.archives import Descriptor, memory_blob

    body = manifest | {
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        }
    }
    made = to_json(body)
    blobs = dict(archive.blobs)
    for blob in (memory_blob(config), memory_blob(made)):
        blobs[blob.digest] = blob
    target = Descriptor(OCI_MANIFEST, digest_of(made), len(made))
    return ImageArchive({name: target}, blobs)


@dataclass(frozen=True)
class Pushed:
    """What was pushed."""

    name: str
    digest: str


class Pusher:
    """Pushes to a registry over its plain HTTP API, with basic authentication."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session = session
        self._server = server

    async def image(self, repository: str, tag: str, archive: ImageArchive) -> Pushed:
        """Push the one image of an archive under a tag (none when empty)."""
        (target,) = archive.targets.values()
        with archive.blobs[target.digest].open() as source:
            manifest = source.read()
        document = json.loads(manifest)
        for item in [document["config"], *document["layers"]]:
            with archive.blobs[item["digest"]].open() as source:
                await self.blob(repository, source.read())
        return await self.manifest(
            repository, tag or target.digest, manifest, target.media_type
        )

    async def index(
        self, repository: str, tag: str, images: Mapping[str, ImageArchive]
    ) -> Pushed:
        """Push images by architecture, and an index of them."""
        entries = []
        for architecture, archive in images.items():
            pushed = await self.image(repository, "", archive)
            (target,) = archive.targets.values()
            entries.append(
                {
                    "mediaType": target.media_type,
                    "digest": pushed.digest,
                    "size": target.size,
                    "platform": {"os": "linux", "architecture": architecture},
                }
            )
        index = to_json(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        )
        return await self.manifest(repository, tag, index, OCI_INDEX)

    async def blob(self, repository: str, data: bytes) -> str:
        """Push a blob."""
        digest = digest_of(data)
        begin = f"{self._server.url}/v2/{repository}/blobs/uploads/"
        async with self._session.post(begin) as answer:
            assert answer.status == 202, await answer.text()
            location = urljoin(begin, answer.headers["Location"])
        async with self._session.put(
            location + ("&" if "?" in location else "?") + f"digest={digest}",
            data=io.BytesIO(data),
            headers={"Content-Type": "application/octet-stream"},
        ) as answer:
            assert answer.status == 201, await answer.text()
        return digest

    async def manifest(
        self, repository: str, reference: str, data: bytes, media_type: str
    ) -> Pushed:
        """Push a manifest or index."""
        url = f"{self._server.url}/v2/{repository}/manifests/{reference}"
        async with self._session.put(
            url, data=data, headers={"Content-Type": media_type}
        ) as answer:
            assert answer.status == 201, await answer.text()
        separator = "@" if ":" in reference else ":"
        name = f"{self._server.host}/{repository}{separator}{reference}"
        return Pushed(name, digest_of(data))


@asynccontextmanager
async def pusher(server: Server) -> AsyncIterator[Pusher]:
    """Return a pusher that logs in as the first of the server's users."""
    headers = {}
    for user, password in list(server.users.items())[:1]:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    context = ssl.create_default_context(cadata=server.ca) if server.ca else True
    async with aiohttp.ClientSession(
        headers=headers, connector=aiohttp.TCPConnector(ssl=context)
    ) as session:
        yield Pusher(session, server)
        # TLS connections end a moment after the session.
        await asyncio.sleep(0)
