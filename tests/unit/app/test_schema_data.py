import lzma
from importlib import resources
from pathlib import Path

import pytest

from podyard.api.schema import Schemas
from podyard.app import schema_data
from podyard.app.schema_data import SchemaDataError, load_schema_data
from support.definitions import load_build_schema


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand a folder in for the installed package."""
    monkeypatch.setattr(resources, "files", lambda name: tmp_path)
    return tmp_path / "api" / "_schema" / "kubernetes.json.xz"


def test_the_built_file_is_read(package: Path) -> None:
    load_build_schema().ensure_schema(package)

    data = load_schema_data()

    assert data["kubernetes"] == "v1.36.0"
    assert Schemas(data["definitions"]).has("v1", "Pod")


def test_a_missing_file_says_how_to_build_it(package: Path) -> None:
    with pytest.raises(SchemaDataError, match=r"is missing.*python build_schema\.py"):
        load_schema_data()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no xz", id="no-xz"),
        pytest.param(lzma.compress(b"{}")[:-8], id="cut-short"),
        pytest.param(lzma.compress(b"{"), id="no-json"),
        pytest.param(lzma.compress(b"{}"), id="no-definitions"),
    ],
)
def test_a_damaged_file_says_how_to_build_it_again(
    package: Path, content: bytes
) -> None:
    package.parent.mkdir(parents=True)
    package.write_bytes(content)

    with pytest.raises(SchemaDataError, match=r"python build_schema\.py --force"):
        schema_data.load_schema_data()
