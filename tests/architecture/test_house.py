"""The house is as its map and its contracts say."""

import subprocess
import sys
from pathlib import Path

import pytest

import podyard

ROOT = Path(podyard.__file__).parents[2]
SOURCE = ROOT / "src/podyard"


def test_imports_only_go_where_the_contracts_let_them():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]


def rooms():
    """Return every package, as a path below src/podyard."""
    return sorted(
        str(init.parent.relative_to(SOURCE))
        for init in SOURCE.rglob("__init__.py")
        if init.parent != SOURCE
    )


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_on_the_map(room):
    text = (ROOT / "docs/architecture.md").read_text()

    assert f"`{room}" in text, f"docs/architecture.md does not mention `{room}`"


def decisions():
    """Return every module that decides."""
    return sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("decide.py"))


@pytest.mark.parametrize("module", decisions())
def test_every_decision_has_a_table_of_cases(module):
    name = "podyard." + module.removesuffix(".py").replace("/", ".")
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]

    assert any(name in text and "parametrize" in text for text in tests), name


def test_no_two_test_files_fight_over_a_name():
    names = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]

    assert len(names) == len(set(names))


def test_the_generated_reference_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
