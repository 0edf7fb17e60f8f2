"""Reads the built schema data from the installed package."""

import lzma
from collections.abc import Mapping
from importlib import resources
from typing import Any

import orjson

#: The build product, below the package.
_FOLDERS = ("api", "_schema")
_NAME = "kubernetes.json.xz"


class SchemaDataError(RuntimeError):
    """The schema data is missing or unreadable; the message says what to do."""


def load_schema_data() -> Mapping[str, Any]:
    """Return the schema data: ``fingerprint``, ``kubernetes`` and ``definitions``.

    About 30 ms of CPU; read it once and hand the result to ``Schemas``.

    Raises:
        SchemaDataError: the file was never built, or is damaged.
    """
    file = resources.files("podyard").joinpath(*_FOLDERS, _NAME)
    try:
        data: Mapping[str, Any] = orjson.loads(lzma.decompress(file.read_bytes()))
    except FileNotFoundError as error:
        raise SchemaDataError(
            f"the schema data {file} is missing; an installed Podyard contains it, "
            "in a source tree run: python build_schema.py"
        ) from error
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise SchemaDataError(
            f"the schema data {file} is damaged ({error}); "
            "build it again: python build_schema.py --force"
        ) from error
    if "definitions" not in data:
        raise SchemaDataError(
            f"the schema data {file} has no definitions; "
            "build it again: python build_schema.py --force"
        )
    return data
