"""What ``podyard image`` does."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from podyard.api.observed import Image
from podyard.app.images import ImagesError, NodeImages, PullProgress, open_images
from podyard.cli.build import build_json, build_size, build_table
from podyard.cli.parts import CommandError, UsageError
from podyard.cli.settings import errand_config_of
from podyard.containerd.archives import ImageArchiveError


def _with_images(
    args: argparse.Namespace, work: Callable[[NodeImages], Awaitable[int]]
) -> int:
    """Do some work over the runtime's socket; turn its failures into a sentence."""
    config = errand_config_of(args)

    async def run() -> int:
        async with open_images(config) as images:
            return await work(images)

    try:
        return asyncio.run(run())
    except ImagesError as error:
        raise CommandError(str(error), code=error.code) from error
    except ImageArchiveError as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{name}{error.strerror or error}") from error


def _ls(args: argparse.Namespace) -> int:
    async def work(images: NodeImages) -> int:
        found = await images.list()
        if args.output == "json":
            print(build_json([_image(image) for image in found]))
        elif args.quiet:
            for image in found:
                print(image.id)
        else:
            rows = sorted(row for image in found for row in _rows(image))
            print(build_table(("IMAGE", "TAG", "IMAGE ID", "SIZE", ""), rows))
        return 0

    return _with_images(args, work)


def _image(image: Image) -> dict[str, object]:
    return {
        "id": image.id,
        "repoTags": list(image.repo_tags),
        "repoDigests": list(image.repo_digests),
        "sizeBytes": image.size_bytes,
        "pinned": image.pinned,
    }


def _rows(image: Image) -> Iterator[tuple[str, str, str, str, str]]:
    short = image.id.removeprefix("sha256:")[:12]
    rest = (short, build_size(image.size_bytes), "pinned" if image.pinned else "")
    for tag in image.repo_tags:
        name, _, version = tag.rpartition(":")
        yield (name, version, *rest)
    if not image.repo_tags:
        digest = image.repo_digests[0] if image.repo_digests else "<none>"
        yield (digest.partition("@")[0], "<none>", *rest)


def _pull(args: argparse.Namespace) -> int:
    async def work(images: NodeImages) -> int:
        with _bar(args.image) as tell:
            pulled = await images.pull(args.image, tell)
        image = pulled.image
        if args.output == "json":
            document = _image(image) | {
                "name": pulled.name,
                "credential": pulled.credential,
                "tookSeconds": round(pulled.took_s, 3),
            }
            print(build_json(document))
            return 0
        with_what = f", with {pulled.credential}" if pulled.credential else ""
        print(
            f"{pulled.name} {image.id} ({build_size(image.size_bytes)} in "
            f"{pulled.took_s:.2f} s{with_what})"
        )
        return 0

    return _with_images(args, work)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[PullProgress], None]]:
    """Show progress on a terminal, on one line that is gone afterwards."""
    stream = sys.stderr
    if not stream.isatty():
        yield lambda _: None
        return

    def tell(progress: PullProgress) -> None:
        columns = shutil.get_terminal_size().columns
        line = progress_line(
            name,
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            layers=progress.under_way,
        )
        stream.write(f"\r\x1b[K{line[: columns - 1]}")
        stream.flush()

    try:
        yield tell
    finally:
        stream.write("\r\x1b[K")
        stream.flush()


def progress_line(name: str, *, done_bytes: int, total_bytes: int, layers: int) -> str:
    """Return how far a pull is as one line of text."""
    if not total_bytes:
        return f"pulling {name} …"
    share = min(1.0, done_bytes / total_bytes)
    filled = int(share * 24)
    bar = "#" * filled + "." * (24 - filled)
    done, total = build_size(done_bytes), build_size(total_bytes)
    what = f", {layers} layers" if layers > 1 else ""
    if not layers and share == 1.0:
        what = ", unpacking"
    return f"pulling {name} [{bar}] {share:4.0%} {done}/{total}{what}"


def _load(args: argparse.Namespace) -> int:
    if args.file == "-" and sys.stdin.isatty():
        raise UsageError("load: give a FILE, or an archive on standard input")

    async def work(images: NodeImages) -> int:
        if args.file == "-":
            names = await images.load_from(sys.stdin.buffer)
        else:
            names = await images.load(Path(args.file))
        for name in names:
            print(f"loaded {name}")
        return 0

    return _with_images(args, work)


def _save(args: argparse.Namespace) -> int:
    if args.file == "-" and sys.stdout.isatty():
        raise UsageError("save: give -o FILE; a terminal is no place for an archive")

    async def work(images: NodeImages) -> int:
        with _file_or_stdout(args.file) as out:
            size = await images.save(args.images, out)
        if args.file != "-":
            print(f"saved {len(args.images)} to {args.file} ({build_size(size)})")
        return 0

    return _with_images(args, work)


@contextmanager
def _file_or_stdout(name: str) -> Iterator[IO[bytes]]:
    """Give a place to write to; a file appears whole or not at all."""
    if name == "-":
        yield sys.stdout.buffer
        return
    path = Path(name)
    fd, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            os.fchmod(file.fileno(), 0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _rm(args: argparse.Namespace) -> int:
    async def work(images: NodeImages) -> int:
        failed = False
        for name in args.images:
            try:
                print(await images.remove(name, force=args.force))
            except ImagesError as error:
                failed = True
                print(f"podyard image: {error}", file=sys.stderr)
        return 1 if failed else 0

    return _with_images(args, work)


def _inspect(args: argparse.Namespace) -> int:
    async def work(images: NodeImages) -> int:
        print(build_json([await images.inspect(name) for name in args.images]))
        return 0

    return _with_images(args, work)


ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "ls": _ls,
    "pull": _pull,
    "load": _load,
    "save": _save,
    "rm": _rm,
    "inspect": _inspect,
}
