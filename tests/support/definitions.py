"""The definitions as a build makes them, for tests of what reads them."""

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from podyard.api.schema import Schemas

ROOT = Path(__file__).resolve().parents[2]


@cache
def load_build_schema() -> ModuleType:
    """Return the build script as a module; it is in no package."""
    spec = importlib.util.spec_from_file_location(
        "build_schema", ROOT / "build_schema.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_schema"] = module
    spec.loader.exec_module(module)
    return module


@cache
def load_definitions() -> dict[str, dict[str, Any]]:
    build = load_build_schema()
    source = json.loads(build.find_source().read_bytes())
    definitions: dict[str, dict[str, Any]] = build.build_definitions(source)
    return definitions


@cache
def load_schemas() -> Schemas:
    return Schemas(load_definitions())
