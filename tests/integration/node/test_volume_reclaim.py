"""Directories of claimed volumes: made and removed, and nothing else is."""

from pathlib import Path

import pytest

from podyard.node.volumes.mounts import make_below
from podyard.node.volumes.reclaim import remove_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where volumes are kept, with one that has data."""
    root = tmp_path / "volumes"
    make_below(root, ("web", "data-1"), mode=0o777)
    (root / "web" / "data-1" / "deep").mkdir()
    (root / "web" / "data-1" / "deep" / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("stays")
    return root


def test_a_volume_is_for_everybody_and_its_parents_only_to_pass(root: Path) -> None:
    modes = [oct(p.stat().st_mode & 0o777) for p in (root, root / "web")]

    assert modes == ["0o711", "0o711"]
    assert (root / "web" / "data-1").stat().st_mode & 0o777 == 0o777


def test_a_volume_that_is_there_stays_as_it_is(root: Path) -> None:
    (root / "web" / "data-1").chmod(0o700)

    make_below(root, ("web", "data-1"), mode=0o777)

    assert (root / "web" / "data-1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", ["web", "web/data-1"])
def test_a_symlink_in_the_way_is_not_followed(root: Path, where: str) -> None:
    (root / where).rename(root / "moved")
    (root / where).symlink_to(root.parent / "outside")

    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        make_below(root, ("web", "data-1"), mode=0o777)

    assert [one.name for one in (root.parent / "outside").iterdir()] == ["file"]


def test_removal_takes_the_volume_and_an_empty_namespace(root: Path) -> None:
    make_below(root, ("web", "data-2"), mode=0o777)

    remove_data(root, root / "web" / "data-1")
    assert [entry.name for entry in (root / "web").iterdir()] == ["data-2"]

    remove_data(root, root / "web" / "data-2")
    assert list(root.iterdir()) == []
    remove_data(root, root / "web" / "data-2")


@pytest.mark.parametrize(
    "path", ["../outside", ".", "", "web/../../outside", "/etc/hostname"], ids=str
)
def test_removal_never_leaves_the_directory(root: Path, path: str) -> None:
    remove_data(root, root / path)

    assert (root.parent / "outside" / "file").read_text() == "stays"
    assert (root / "web" / "data-1" / "deep" / "file").exists()
    assert Path("/etc/hostname").exists()


def test_removal_follows_no_symlink(root: Path) -> None:
    (root / "web" / "data-1" / "link").symlink_to(root.parent / "outside")
    (root / "other").symlink_to(root.parent)

    remove_data(root, root / "web" / "data-1")
    with pytest.raises(OSError, match="symbolic links"):
        remove_data(root, root / "other" / "outside")

    assert (root.parent / "outside" / "file").read_text() == "stays"
