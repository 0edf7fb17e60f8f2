"""The images on this node, for people: list, pull, load, save, remove, inspect.

Works beside a running Podyard, over the runtime's own socket. What only containerd
can do (names, contents, progress) says so where the runtime is another one.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.image_ref import (
    ImageRef,
    ImageRefError,
    apply_default_tag,
    parse_image_name,
)
from podyard.api.observed import ContainerStatus, Image
from podyard.api.runtime import ImageAuth
from podyard.api.scheme import Kind
from podyard.app.config import Config, ConfigError
from podyard.app.credentials import source_context
from podyard.app.guarded_images import GuardedImages
from podyard.app.host import snapshotter_for
from podyard.app.instances import InstanceTable
from podyard.containerd.archives import Json
from podyard.containerd.client import ContainerdClient, ContainerdError
from podyard.containerd.content import (
    ContentError,
    ContentStore,
    Ingest,
    NamedImage,
    save_images,
)
from podyard.containerd.images import PINNED, ImageImporter
from podyard.cri.client import CriChannel, GrpcImageService, GrpcRuntimeService
from podyard.cri.services import CRIError, CRIUnavailableError
from podyard.lib.clock import Clock, SystemClock
from podyard.lib.values import dataclass
from podyard.node.credentials.manager import CredentialManager

log = structlog.get_logger()

_PROGRESS_EVERY_S: Final = 0.1
_NOTICED_WITHIN_S: Final = 10.0


class ImagesError(Exception):
    """The errand cannot be done; the message says why and what to do.

    Attributes:
        code: the exit code of the command line.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is.

    Attributes:
        done_bytes: bytes that are here.
        total_bytes: bytes known to be needed; grows while layers are found.
        under_way: layers on their way now.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    under_way: int = 0


@dataclass(slots=True)
class PullMeter:
    """Adds up what containerd tells of blobs on their way; a gone one is done.

    Attributes:
        since: blobs begun earlier belong to other pulls.
    """

    since: datetime
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)

    def update(self, ingests: Iterable[Ingest]) -> PullProgress:
        """Return how far it is, from what is being written now."""
        now = {item.ref: item for item in ingests if item.started_at >= self.since}
        for ref, (_, total) in self._known.items():
            if ref not in now:
                self._known[ref] = (total, total)
        for ref, item in now.items():
            self._known[ref] = (item.offset, max(item.total, item.offset))
        return PullProgress(
            sum(done for done, _ in self._known.values()),
            sum(total for _, total in self._known.values()),
            sum(ref.startswith("layer-") for ref in now),
        )


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pull that succeeded.

    Attributes:
        name: the image's full name.
        credential: which one the registry took; empty for none.
        took_s: seconds.
    """

    name: str
    image: Image
    credential: str
    took_s: float


class _NoObjects:
    """There is no Pod, so nothing to refer to."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:  # noqa: ARG002
        """Return nothing."""
        return None


class NodeImages:
    """The images of one runtime."""

    def __init__(
        self, config: Config, channel: CriChannel, socket: str, *, clock: Clock
    ) -> None:
        """Speak to a runtime; :func:`open_images` makes one.

        Args:
            config: whose credentials and registries count.
            channel: to the runtime.
            socket: the same, for containerd's own calls.
            clock: measures.
        """
        self._config = config
        self._images = GuardedImages(GrpcImageService(channel), config)
        self._runtime = GrpcRuntimeService(channel)
        self._socket = socket
        self._clock = clock

    async def list(self) -> tuple[Image, ...]:
        """Return all images.

        Raises:
            CRIError: the runtime failed.
            ContainerdError: containerd failed.
        """
        images = await self._images.list_images()
        pinned = await self._pinned()
        return tuple(
            replace(image, pinned=True)
            if pinned.intersection(image.repo_tags)
            else image
            for image in images
        )

    async def _pinned(self) -> frozenset[str]:
        """Return the names that containerd has pinned; CRI tells since 1.7 only."""
        async with ContainerdClient(self._socket) as client:
            try:
                named = await ContentStore(client).images()
            except ContainerdError as error:
                if error.code == "UNIMPLEMENTED":
                    return frozenset()
                raise
        return frozenset(
            image.name for image in named if PINNED.items() <= image.labels.items()
        )

    # -- pull

    async def pull(self, name: str, tell: Callable[[PullProgress], None]) -> Pulled:
        """Pull with the node's credentials, each that fits in turn.

        Args:
            name: the image, short names allowed.
            tell: told now and then how far it is.

        Raises:
            ImagesError: the name is none, or no credential helped.
        """
        ref, wanted = _parse(name)
        try:
            context = await asyncio.to_thread(
                source_context, self._config, _NoObjects()
            )
        except ConfigError as error:
            raise ImagesError(str(error), code=2) from error
        manager = CredentialManager(
            context,
            semantics="upstream"
            if self._config.semantics == "upstream"
            else "documented",
        )
        found = await manager.look_up(Pod.of({}), ref.repository)
        began_s = self._clock.monotonic_s()
        failures: list[str] = []
        for credential in found.credentials or (None,):
            auth = credential.auth if credential else None
            source = str(credential) if credential else ""
            try:
                await self._pull_once(wanted, auth, tell)
            except CRIUnavailableError:
                raise
            except CRIError as error:
                failures.append(f"{error.message} (with {source or 'no credentials'})")
                continue
            image = await self._noticed(wanted)
            took_s = self._clock.monotonic_s() - began_s
            return Pulled(_full_name(name), image, source, took_s)
        raise ImagesError(
            f"{name} cannot be pulled: {'; '.join(dict.fromkeys(failures))}\n"
            f"('podyard registry test {name}' goes through it step by step)"
        )

    async def _pull_once(
        self,
        wanted: str,
        auth: ImageAuth | None,
        tell: Callable[[PullProgress], None],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(tell))
            try:
                error = await self._attempt(wanted, auth)
            finally:
                watching.cancel()
        if error is not None:
            raise error

    async def _attempt(self, wanted: str, auth: ImageAuth | None) -> CRIError | None:
        # Returned, not raised: inside the group it would come out as a group.
        try:
            await self._images.pull_image(wanted, auth=auth)
        except CRIError as error:
            return error
        return None

    async def _watch(self, tell: Callable[[PullProgress], None]) -> None:
        meter = PullMeter(self._clock.now() - timedelta(seconds=1))
        async with ContainerdClient(self._socket) as client:
            store = ContentStore(client)
            while True:
                try:
                    tell(meter.update(await store.ingests()))
                except ContainerdError as error:
                    # Another runtime than containerd: it tells no progress.
                    log.debug("no_pull_progress", error=str(error))
                    return
                await asyncio.sleep(_PROGRESS_EVERY_S)

    async def _noticed(self, name: str) -> Image:
        """Wait until CRI knows an image; it hears of it a moment later."""
        try:
            async with asyncio.timeout(_NOTICED_WITHIN_S):
                while True:
                    image = await self._images.image_status(name)
                    if image is not None:
                        return image
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise ImagesError(f"the runtime does not show {name}") from error

    # -- load and save

    async def load(self, path: Path) -> tuple[str, ...]:
        """Bring in a docker-save or OCI-layout tar; return the image names.

        Raises:
            ImageArchiveError: the file is no image archive, or is damaged.
            ContainerdError: containerd refused.
            ImagesError: CRI does not show the images.
        """
        root = await self._containerd_root()
        importer = ImageImporter(
            self._socket,
            clock=self._clock,
            root=root,
            snapshotter=snapshotter_for(root) if root else "overlayfs",
        )
        names = await importer.import_file(path)
        for name in names:
            await self._noticed(name)
        return names

    async def load_from(self, stream: IO[bytes]) -> tuple[str, ...]:
        """Bring in what a pipe gives; it is kept in a file meanwhile."""
        with tempfile.NamedTemporaryFile(prefix="podyard-load-") as file:
            await asyncio.to_thread(_copy, stream, file)
            return await self.load(Path(file.name))

    async def _containerd_root(self) -> Path | None:
        if self._config.runtime_endpoint:
            return None
        row = await asyncio.to_thread(InstanceTable().get, self._config.name)
        return row.containerd_root if row else None

    async def save(self, names: Sequence[str], out: IO[bytes]) -> int:
        """Write images as an OCI layout in a tar; return the bytes of their blobs.

        Raises:
            ImagesError: an image is not here, or not whole.
            ContainerdError: this is not containerd.
        """
        async with ContainerdClient(self._socket) as client:
            store = ContentStore(client)
            images = [await self._find(store, name) for name in names]
            try:
                return await save_images(store, images, out)
            except ContentError as error:
                raise ImagesError(
                    f"cannot be saved, an image is not whole on this node: {error}"
                ) from error

    async def _find(self, store: ContentStore, name: str) -> NamedImage:
        image = await self._require(name)
        for candidate in (_full_name(name), *image.repo_tags, *image.repo_digests):
            named = await store.image(candidate) if candidate else None
            if named is not None:
                return named
        raise ImagesError(f"{name} has no name in containerd")

    async def _require(self, name: str) -> Image:
        image = await self._images.image_status(name)
        if image is None:
            raise ImagesError(f"{name}: no such image on this node")
        return image

    # -- remove

    async def remove(self, name: str, *, force: bool) -> str:
        """Remove an image, or just one of its names; say what was done.

        Args:
            name: a name, an id, or the beginning of an id.
            force: also when a container uses it, or it is pinned.

        Raises:
            ImagesError: it is not here, or in use.
        """
        image = await self._require(name)
        full = _full_name(name)
        others = [tag for tag in image.repo_tags if tag != full]
        if full in image.repo_tags and others and await self._untag(full):
            return f"untagged {full}; still named {', '.join(others)}"
        pinned = image.pinned or (await self._pinned()).intersection(image.repo_tags)
        if pinned and not force:
            raise ImagesError(
                f"{name} is pinned, Podyard itself needs it (--force removes it)"
            )
        users = [
            one for one in await self._runtime.list_containers() if _uses(one, image)
        ]
        if users and not force:
            raise ImagesError(
                f"{name} is in use by {_describe(users)} (--force removes it)"
            )
        await self._images.remove_image(image.id)
        return f"removed {full if full in image.repo_tags else image.id}"

    async def _untag(self, full: str) -> bool:
        """Take one name away; ``False`` where the runtime is not containerd."""
        async with ContainerdClient(self._socket) as client:
            try:
                await ContentStore(client).untag(full)
            except ContainerdError as error:
                if error.code == "UNIMPLEMENTED":
                    return False
                raise
        return True

    # -- inspect

    async def inspect(self, name: str) -> Document:
        """Return all that is known of an image.

        Raises:
            ImagesError: it is not here.
        """
        image = await self._require(name)
        document: Document = {
            "id": image.id,
            "repoTags": list(image.repo_tags),
            "repoDigests": list(image.repo_digests),
            "sizeBytes": image.size_bytes,
            "user": image.username or ("" if image.user is None else str(image.user)),
            "pinned": image.pinned,
        }
        async with ContainerdClient(self._socket) as client:
            store = ContentStore(client)
            try:
                named = await self._find(store, name)
                return document | await _contents(store, named, image.id)
            except ContainerdError as error:
                if error.code == "UNIMPLEMENTED":
                    return document
                raise


@asynccontextmanager
async def open_images(config: Config) -> AsyncGenerator[NodeImages, None]:
    """Connect to the instance's runtime, or to ``--runtime-endpoint``.

    Raises:
        ImagesError: neither runs, or it may not be talked to. Failures of the runtime
            and of containerd inside the block come out as this too.
    """
    socket = await asyncio.to_thread(_socket_of, config)
    channel = CriChannel(f"unix://{socket}")
    try:
        yield NodeImages(config, channel, str(socket), clock=SystemClock())
    except CRIUnavailableError as error:
        raise ImagesError(f"no runtime answers at {socket}", code=3) from error
    except CRIError as error:
        raise ImagesError(f"the runtime refused: {error.message}") from error
    except ContainerdError as error:
        if error.code == "UNIMPLEMENTED":
            raise ImagesError(
                f"the runtime at {socket} is not containerd; only containerd can do "
                "this"
            ) from error
        if error.code == "UNAVAILABLE":
            raise ImagesError(f"no runtime answers at {socket}", code=3) from error
        raise ImagesError(f"containerd refused: {error}") from error
    finally:
        await channel.close()


def _socket_of(config: Config) -> Path:
    if config.runtime_endpoint:
        socket = Path(config.runtime_endpoint.removeprefix("unix://"))
    else:
        row = InstanceTable().get(config.name)
        if row is None:
            raise ImagesError(
                f'instance "{config.name}" is not running (start it with: podyard up '
                "-d); --runtime-endpoint takes another runtime",
                code=3,
            )
        socket = row.containerd_socket
    try:
        present = socket.is_socket()
    except PermissionError:
        present = True
    if not present:
        raise ImagesError(f"there is no runtime at {socket}", code=3)
    if not os.access(socket, os.W_OK):
        raise ImagesError(f"may not talk to {socket}: run as root (sudo podyard …)")
    return socket


async def _contents(store: ContentStore, named: NamedImage, image_id: str) -> Json:
    """Return what only the content store knows."""
    target = named.target
    document: Json = {
        "target": {
            "mediaType": target.media_type,
            "digest": target.digest,
            "sizeBytes": target.size,
        },
        "labels": named.labels,
    }
    platforms: list[Json] = []
    for item in await store.manifests(target):
        digest = str(item.get("digest"))
        here = await store.has(digest)
        entry: Json = {"digest": digest, "present": here}
        platforms.append(entry)
        manifest = await store.read_json(digest) if here else {}
        config_digest = str((manifest.get("config") or {}).get("digest") or "")
        config = await _config(store, config_digest)
        entry["platform"] = _platform(item.get("platform") or config)
        if config and config_digest == image_id:
            entry["chosen"] = True
            document["config"] = config
            document["layers"] = [
                {
                    "mediaType": layer.get("mediaType"),
                    "digest": layer.get("digest"),
                    "sizeBytes": layer.get("size"),
                }
                for layer in manifest.get("layers") or ()
            ]
    return document | {"platforms": platforms}


async def _config(store: ContentStore, digest: str) -> Json:
    if not digest or not await store.has(digest):
        return {}
    return await store.read_json(digest)


def _platform(document: Any) -> str:
    parts = (document.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(str(part) for part in parts if part)


def _parse(name: str) -> tuple[ImageRef, str]:
    try:
        return parse_image_name(name), apply_default_tag(name)
    except ImageRefError as error:
        raise ImagesError(str(error), code=2) from error


def _full_name(name: str) -> str:
    """Return a name as containerd stores it; empty where it can only be an id."""
    try:
        ref = parse_image_name(name)
    except ImageRefError:
        return ""
    return str(replace(ref, tag="" if ref.digest else ref.effective_tag))


def _uses(container: ContainerStatus, image: Image) -> bool:
    names = {image.id, *image.repo_tags, *image.repo_digests}
    return container.image in names or container.image_id in names


def _describe(users: Sequence[ContainerStatus]) -> str:
    shown = [
        "/".join(
            part
            for part in (
                one.labels.get("io.kubernetes.pod.namespace", ""),
                one.labels.get("io.kubernetes.pod.name", ""),
                one.name,
            )
            if part
        )
        for one in users
    ]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    what = "container" if len(shown) == 1 else "containers"
    return f"{what} {', '.join(shown[:3])}{more}"


def _copy(stream: IO[bytes], file: IO[bytes]) -> None:
    while data := stream.read(1 << 20):
        file.write(data)
    file.flush()
