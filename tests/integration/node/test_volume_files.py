"""Files of volumes on a real filesystem: atomic, and safe against hostile containers."""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from podyard.lib.linux import (
    MNT_DETACH,
    MS_BIND,
    mount,
    read_mounts,
    remove_tree,
    rename_exchange,
    unmount,
)
from podyard.node.volumes.atomic import write_payload
from podyard.node.volumes.build import FileProjection, PayloadError
from podyard.node.volumes.mounts import prepare_sub_path, set_ownership, take_down

pytestmark = pytest.mark.integration


class Stamps:
    """Grows, as time does."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"2026_01_01_00_00_00.{self._count:09}"


@pytest.fixture
def stamp():
    return Stamps()


@pytest.fixture
def outside(tmp_path):
    """Something of the host's that nothing may touch."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_text("precious")
    yield directory
    assert (directory / "precious").read_text() == "precious"
    assert sorted(p.name for p in directory.iterdir()) == ["precious"]


@pytest.fixture
def volume(tmp_path):
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


def files(**contents):
    return {
        name.replace("__", "/"): FileProjection(text.encode())
        for name, text in contents.items()
    }


def shown(volume):
    """Return what a container sees."""
    return {
        str(path.relative_to(volume)): path.read_text()
        for name in volume.iterdir()
        if not name.name.startswith("..")
        for path in ([name] if name.is_file() else sorted(name.rglob("*")))
        if path.is_file()
    }


def test_a_volume_shows_exactly_its_files(volume, stamp):
    assert write_payload(volume, files(a="1", d__e__f="2"), stamp=stamp())
    assert shown(volume) == {"a": "1", "d/e/f": "2"}
    assert (volume / "a").readlink() == Path("..data/a")
    assert (volume / "d").readlink() == Path("..data/d")

    assert write_payload(volume, files(a="3", g="4"), stamp=stamp())
    assert shown(volume) == {"a": "3", "g": "4"}
    assert len(list(volume.iterdir())) == 4  # two links, ..data, one dated directory


def test_an_equal_content_changes_nothing(volume, stamp):
    write_payload(volume, files(a="1"), stamp=stamp())
    before = (volume / "..data").readlink()

    assert not write_payload(volume, files(a="1"), stamp=stamp())
    assert (volume / "..data").readlink() == before


def test_an_empty_content_is_a_content(volume, stamp):
    assert write_payload(volume, {}, stamp=stamp())
    assert not write_payload(volume, {}, stamp=stamp())
    assert shown(volume) == {}


@pytest.mark.parametrize("path", ["../x", "..data", "/etc/x", "a/../../x", "a\0b"])
def test_paths_out_of_the_volume_are_refused(volume, stamp, path):
    with pytest.raises(PayloadError):
        write_payload(volume, {path: FileProjection(b"")}, stamp=stamp())

    assert list(volume.iterdir()) == []


def test_modes_and_owners_are_those_asked_for(volume, stamp):
    payload = {
        "plain": FileProjection(b"x", 0o644),
        "secret": FileProjection(b"x", 0o400),
        "owned": FileProjection(b"x", 0o600, 1234),
        "d/run": FileProjection(b"x", 0o755),
    }

    write_payload(volume, payload, stamp=stamp())

    infos = {path: (volume / path).stat() for path in payload}
    assert {p: stat.S_IMODE(i.st_mode) for p, i in infos.items()} == {
        "plain": 0o644,
        "secret": 0o400,
        "owned": 0o600,
        "d/run": 0o755,
    }
    assert infos["owned"].st_uid == 1234
    assert stat.S_IMODE((volume / "d").stat().st_mode) == 0o755


def test_fs_group_may_read_everything(volume, stamp):
    volume.chmod(0o777)

    write_payload(
        volume, {"d/f": FileProjection(b"x", 0o400)}, stamp=stamp(), fs_group=4321
    )

    info = (volume / "d/f").stat()
    assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (4321, 0o440)
    for directory in (volume, volume / "..data/", volume / "d/"):
        info = directory.stat()
        assert info.st_gid == 4321
        assert info.st_mode & stat.S_ISGID
    assert not write_payload(
        volume, {"d/f": FileProjection(b"x", 0o400)}, stamp=stamp(), fs_group=4321
    )


@pytest.mark.parametrize("name", ["..data", "a", "d", "..data_tmp"])
def test_a_link_a_container_put_in_the_way_is_not_followed(
    volume, outside, stamp, name
):
    write_payload(volume, files(a="1", d__e="2"), stamp=stamp())
    with suppress(FileNotFoundError):
        (volume / name).unlink()
    (volume / name).symlink_to(outside)

    write_payload(volume, files(a="3", d__e="4"), stamp=stamp())

    assert shown(volume) == {"a": "3", "d/e": "4"}


def test_a_dated_directory_that_became_a_link_is_not_followed(volume, outside, stamp):
    write_payload(volume, files(a="1"), stamp=stamp())
    dated = volume / (volume / "..data").readlink()
    dated.rename(volume / "moved")
    dated.symlink_to(outside)

    write_payload(volume, files(a="2"), stamp=stamp())

    assert shown(volume) == {"a": "2"}
    assert min(p.name for p in volume.iterdir()).startswith("..2026")


def test_directories_a_container_put_in_the_way_are_removed(volume, stamp):
    for name in ("..data", "a"):
        (volume / name / "deep").mkdir(parents=True)

    write_payload(volume, files(a="1"), stamp=stamp())

    assert shown(volume) == {"a": "1"}


def test_a_reader_never_sees_a_mix(volume, stamp):
    """Both files always say the same, as long as one content is looked at."""
    write_payload(volume, files(a="0", b="0"), stamp=stamp())
    stop, seen, faults = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            with suppress(FileNotFoundError):
                content = os.open(volume / "..data", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    pair = []
                    for name in ("a", "b"):
                        fd = os.open(name, os.O_RDONLY, dir_fd=content)
                        pair.append(os.read(fd, 100))
                        os.close(fd)
                    seen.add(pair[0])
                    if pair[0] != pair[1]:
                        faults.append(pair)
                finally:
                    os.close(content)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(1, 400):
        write_payload(volume, files(a=str(n), b=str(n)), stamp=stamp())
    stop.set()
    reader.join()

    assert faults == []
    assert len(seen) > 10


def test_a_visible_file_is_never_missing_while_it_changes(volume, stamp):
    write_payload(volume, files(a="0"), stamp=stamp())
    stop, missing = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                os.lstat(volume / "a")
                (volume / "..data").readlink()
            except FileNotFoundError as error:
                missing.append(error)

    looker = threading.Thread(target=look)
    looker.start()
    for n in range(300):
        write_payload(volume, files(a=str(n)), stamp=stamp())
    stop.set()
    looker.join()

    assert missing == []


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "pod" / "volume-subpaths" / "v" / "c" / "0"
    yield path
    with suppress(OSError):
        while True:
            unmount(path, MNT_DETACH)


def test_a_sub_path_is_what_it_was_when_bound(volume, target, outside):
    (volume / "d").mkdir()
    (volume / "d/f").write_text("inside")

    prepare_sub_path(str(volume), "d", target)
    (volume / "d").rename(volume / "moved")
    (volume / "d").symlink_to(outside)

    assert (target / "f").read_text() == "inside"


def test_a_file_can_be_a_sub_path(volume, target):
    (volume / "f").write_text("x")

    prepare_sub_path(str(volume), "f", target)

    assert target.read_text() == "x"


def test_a_missing_sub_path_is_made_with_the_volumes_mode(volume, target):
    volume.chmod(0o2775)

    prepare_sub_path(str(volume), "a/b", target)

    for path in (volume / "a", volume / "a/b", target):
        assert stat.S_IMODE(path.stat().st_mode) == 0o2775


def test_links_inside_the_volume_are_followed(volume, target):
    (volume / "real").mkdir()
    (volume / "real/f").write_text("x")
    (volume / "link").symlink_to("real")

    prepare_sub_path(str(volume), "link", target)

    assert (target / "f").read_text() == "x"


def test_config_map_keys_can_be_sub_paths(volume, target, stamp):
    write_payload(volume, files(a="1"), stamp=stamp())

    prepare_sub_path(str(volume), "a", target)
    write_payload(volume, files(a="2"), stamp=stamp())

    assert target.read_text() == "1"  # subPath mounts are never refreshed


def test_the_next_container_gets_the_sub_path_anew(volume, target):
    (volume / "p").write_text("file")
    prepare_sub_path(str(volume), "p", target)
    (volume / "p").unlink()
    (volume / "p").mkdir()

    prepare_sub_path(str(volume), "p", target)

    assert target.is_dir()
    assert len(read_mounts(target)) == 1


@pytest.mark.parametrize(
    "link",
    [
        "/",
        "../",
        "/bin/notexist",
        "../outside",
        "../../../../../etc",
        "/proc/self/root",
    ],
)
@pytest.mark.parametrize("below", ["", "/x"])
def test_links_out_of_the_volume_are_refused(volume, target, outside, link, below):
    (volume / "evil").symlink_to(link)

    with pytest.raises(OSError, match=r"cross-device|symbolic links|No such"):
        prepare_sub_path(str(volume), f"evil{below}", target)

    assert read_mounts(target) == []


def test_a_dangling_link_is_not_created_through(volume, target, outside):
    (volume / "evil").symlink_to("nowhere")

    with pytest.raises(OSError, match="symbolic links"):
        prepare_sub_path(str(volume), "evil", target)

    assert not (volume / "nowhere").exists()


def test_a_race_of_links_and_directories_never_leaves_the_volume(
    volume, target, outside
):
    """A container swaps a directory and a link to the host while we look."""
    (volume / "p").mkdir()
    (volume / "p/f").mkdir()
    (volume / "p/f/inside").touch()
    evil = volume / "evil"
    evil.symlink_to(outside)
    (outside.parent / "host").mkdir()
    stop = threading.Event()

    def race():
        while not stop.is_set():
            rename_exchange(str(volume / "p"), str(evil))

    racer = threading.Thread(target=race)
    racer.start()
    refused = bound = 0
    try:
        for n in range(2000):
            place = target.with_name(str(n % 4))
            try:
                prepare_sub_path(str(volume), "p/f", place)
            except OSError:
                refused += 1
                continue
            bound += 1
            assert (place / "inside").exists() or list(place.iterdir()) == []
            assert not (place / "precious").exists()
            unmount(place, MNT_DETACH)
    finally:
        stop.set()
        racer.join()
    assert bound
    assert refused


def test_removal_of_a_deep_and_wide_tree(tmp_path):
    top = tmp_path / "pod"
    (top / "volumes").mkdir(parents=True)
    deep = os.open(top / "volumes", os.O_RDONLY)
    for n in range(1500):
        os.mkdir("d", dir_fd=deep)
        fd = os.open(f"f{n}", os.O_CREAT, dir_fd=deep)
        os.close(fd)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    for n in range(300):
        (top / "volumes" / f"w{n}" / "x").mkdir(parents=True)

    take_down(top, ["volumes"])

    assert list(top.iterdir()) == []


def test_removal_follows_no_link(tmp_path, outside):
    top = tmp_path / "pod"
    (top / "volumes/v").mkdir(parents=True)
    (top / "volumes/link").symlink_to(outside)
    (top / "volumes/v/file").symlink_to(outside / "precious")

    take_down(top, ["volumes"])

    assert list(top.iterdir()) == []


def test_removal_never_crosses_a_mount(tmp_path, outside):
    """Even a bind mount of the same filesystem, which no device number tells."""
    top = tmp_path / "pod"
    inner = top / "v/inner"
    inner.mkdir(parents=True)
    mount(outside, inner, flags=MS_BIND)
    directory = os.open(top, os.O_RDONLY)

    try:
        with pytest.raises(OSError, match="cross-device"):
            remove_tree(directory, "v")
    finally:
        os.close(directory)
        unmount(inner)


def test_taking_down_unmounts_before_it_removes(tmp_path, outside):
    top = tmp_path / "pod"
    volume, nested = top / "volumes/t", top / "volumes/t/nested"
    volume.mkdir(parents=True)
    mount("tmpfs", volume, "tmpfs")
    nested.mkdir()
    mount(outside, nested, flags=MS_BIND)
    with (volume / "busy").open("w"):
        take_down(top, ["volumes", "missing"])

    assert read_mounts(top) == []
    assert list(top.iterdir()) == []


def test_ownership_reaches_everything_but_what_links_point_to(volume, outside):
    (volume / "d").mkdir(mode=0o700)
    (volume / "d/f").touch(mode=0o600)
    (volume / "link").symlink_to(outside / "precious")
    before = (outside / "precious").stat()

    set_ownership(volume, 4321, read_only=False)

    assert (volume / "d").stat().st_gid == 4321
    assert stat.S_IMODE((volume / "d").stat().st_mode) == 0o2770
    assert stat.S_IMODE((volume / "d/f").stat().st_mode) == 0o660
    assert volume.stat().st_mode & stat.S_ISGID
    assert (volume / "link").lstat().st_gid == 4321
    assert (outside / "precious").stat() == before


def test_ownership_is_left_alone_where_the_top_fits(volume):
    (volume / "f").touch(mode=0o600)
    set_ownership(volume, 4321, read_only=False)
    os.chown(volume / "f", 0, 0)

    set_ownership(volume, 4321, read_only=False, on_mismatch=True)
    assert (volume / "f").stat().st_gid == 0

    set_ownership(volume, 4321, read_only=False)
    assert (volume / "f").stat().st_gid == 4321
