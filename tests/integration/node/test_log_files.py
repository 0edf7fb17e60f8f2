"""Reading container logs from real files."""

import asyncio
import os

import pytest

from podyard.node.endpoints.build import LogOptions
from podyard.node.endpoints.logs import LogSource, open_log, read_log
from podyard.node.endpoints.parts import EndpointError


def record(text: str) -> str:
    return f"2026-05-01T11:59:59.1Z stdout F {text}\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "ns_pod_uid" / "c"
    folder.mkdir(parents=True)
    path = folder / "0.log"
    path.write_text("".join(record(f"line {i}") for i in range(5000)))
    return LogSource(tmp_path, path)


async def collect(source, options, alive):
    chunks = read_log(source, await source.open(), options, running=alive)
    return b"".join([chunk async for chunk in chunks])


async def dead():
    return False


@pytest.mark.parametrize("lines", [0, 1, 3, 4999, 5000, 9999])
async def test_tail_gives_the_last_lines(source, lines):
    text = await collect(source, LogOptions(tail_lines=lines), dead)

    expected = [f"line {i}" for i in range(5000)][-lines:] if lines else []
    assert text.decode().splitlines() == expected


async def test_follow_sees_growth_and_rotation_and_ends_with_the_container(source):
    running = True

    async def alive():
        return running

    async def write():
        nonlocal running
        with source.path.open("a") as log:
            log.write(record("grown"))
            log.flush()
        await asyncio.sleep(0.05)
        source.path.rename(source.path.with_suffix(".log.1"))
        source.path.write_text(record("after rotation"))
        await asyncio.sleep(0.05)
        running = False

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(
            collect(source, LogOptions(follow=True, tail_lines=1), alive)
        )
        await asyncio.sleep(0.05)
        group.create_task(write())

    assert reader.result() == b"line 4999\ngrown\nafter rotation\n"


@pytest.mark.parametrize(
    "kind", ["link", "directory", "fifo", "folder-link", "outside"]
)
def test_what_is_no_plain_file_below_the_log_directory_is_refused(tmp_path, kind):
    root = tmp_path / "logs"
    (root / "pod").mkdir(parents=True)
    path = root / "pod" / "0.log"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    match kind:
        case "link":
            path.symlink_to(secret)
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "folder-link":
            (root / "other").symlink_to(tmp_path)
            path = root / "other" / "secret"
        case _:
            path = secret

    with pytest.raises(EndpointError) as caught:
        open_log(root, path)

    assert caught.value.code == 403


async def test_a_log_that_is_gone_is_a_404(source):
    source.path.unlink()

    with pytest.raises(EndpointError) as caught:
        await source.open()

    assert caught.value.code == 404
