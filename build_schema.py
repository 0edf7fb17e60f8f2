"""Build the schema data: the OpenAPI definitions of the kinds Podyard serves.

The definitions come from the ``kubernetes-validate`` package, are cleaned and cut
down to what the served kinds reach, and become one compressed file inside the
package. It is a build product: never committed, made by the wheel build, by an
editable install, or by ``python build_schema.py``.
"""

import argparse
import hashlib
import importlib.util
import json
import lzma
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
if str(ROOT / "src") not in sys.path:
    # A build runs before the package is installed; the table of kinds is pure.
    sys.path.insert(0, str(ROOT / "src"))

from podyard.api.scheme import KINDS  # noqa: E402

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface as _Hook
except ImportError:  # run as a script, without the build tool
    _Hook = object  # type: ignore[assignment,misc]

#: The Kubernetes version whose definitions are taken.
KUBERNETES = "v1.36.0"

#: Where the built file goes, below the project's root.
TARGET = Path("src/podyard/api/_schema/kubernetes.json.xz")

Definitions = dict[str, dict[str, Any]]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."

#: Definitions kept besides the stored kinds and their lists.
EXTRA_ROOTS = (
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.policy.v1.Eviction",
    f"{_META}DeleteOptions",
    f"{_META}MicroTime",
    f"{_META}Patch",
    f"{_META}Status",
    f"{_META}WatchEvent",
)

#: Defaults of fields that are keys of a list: an entry may leave them out. The
#: source definitions carry no defaults at all.
KEY_DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.LocalObjectReference", "name"): "",
}

#: Types that are a choice of JSON types, as OpenAPI v2 says them.
_CHOICES: Definitions = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "type": "string",
        "format": "int-or-string",
    },
}

_GVK = "x-kubernetes-group-version-kind"


class SchemaBuildError(RuntimeError):
    """The schema data cannot be built."""


def find_source() -> Path:
    """Return the definitions file inside the installed kubernetes-validate.

    Raises:
        SchemaBuildError: the package is not installed, or lacks this version.
    """
    # The package itself is not imported: it is slow, and one file is enough.
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise SchemaBuildError(
            "the package kubernetes-validate is needed to build the schema data: "
            "pip install kubernetes-validate==1.37.0"
        )
    folder = Path(spec.origin).parent / "kubernetes-json-schema"
    source = folder / f"{KUBERNETES}-local" / "_definitions.json"
    if not source.is_file():
        raise SchemaBuildError(
            f"the installed kubernetes-validate has no definitions of Kubernetes "
            f"{KUBERNETES}: expected {source}"
        )
    return source


def build_definitions(source: Mapping[str, Any]) -> Definitions:
    """Return the cleaned definitions that the served kinds reach.

    Args:
        source: the parsed definitions file.

    Raises:
        SchemaBuildError: a served kind is not among them.
    """
    found: Mapping[str, dict[str, Any]] = source["$defs"]
    by_kind = {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, definition in found.items()
        # DeleteOptions and WatchEvent name every group there is
        if len(definition.get(_GVK, ())) == 1
        for gvk in definition[_GVK]
    }
    missing = [name for name in EXTRA_ROOTS if name not in found]
    roots = list(EXTRA_ROOTS)
    for kind in KINDS:
        for name in (kind.kind, kind.list_kind):
            definition = by_kind.get((kind.group, kind.version, name))
            if definition is None:
                missing.append(f"{kind.api_version} {name}")
            else:
                roots.append(definition)
    if missing:
        raise SchemaBuildError(f"no definition of: {', '.join(missing)}")
    groups = {(kind.group, kind.version) for kind in KINDS}
    kept: Definitions = {}
    while roots:
        name = roots.pop()
        if name not in kept:
            kept[name] = _clean_definition(name, found[name], groups)
            roots.extend(_references(kept[name]))
    return dict(sorted(kept.items()))


def _clean_definition(
    name: str, definition: Mapping[str, Any], groups: set[tuple[str, str]]
) -> dict[str, Any]:
    cleaned: dict[str, Any] = _clean(definition)
    if name in _CHOICES:
        cleaned.pop("oneOf", None)
        cleaned.update(_CHOICES[name])
    gvks = cleaned.get(_GVK, ())
    if len(gvks) > 1:
        cleaned[_GVK] = [g for g in gvks if (g["group"], g["version"]) in groups]
    fields = cleaned.get("properties", {})
    for field in ("apiVersion", "kind"):
        fields.get(field, {}).pop("enum", None)
    for (owner, field), default in KEY_DEFAULTS.items():
        if owner == name:
            fields[field]["default"] = default
    return cleaned


def _clean(value: Any) -> Any:
    """Undo what was added for JSON schema: nulls and another place of references."""
    if isinstance(value, Mapping):
        cleaned = {key: _clean(item) for key, item in value.items()}
        kind = cleaned.get("type")
        if isinstance(kind, list) and len(kind) == 2 and kind[1] == "null":
            cleaned["type"] = kind[0]
        reference = cleaned.get("$ref")
        if isinstance(reference, str):
            cleaned["$ref"] = f"#/definitions/{reference.rpartition('/')[2]}"
        return cleaned
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item.rpartition("/")[2]
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def build_data(source: bytes) -> dict[str, Any]:
    """Return the whole content of the schema file.

    Args:
        source: the definitions file as it is.
    """
    return {
        "fingerprint": _fingerprint(source),
        "kubernetes": KUBERNETES,
        "definitions": build_definitions(json.loads(source)),
    }


def _fingerprint(source: bytes) -> str:
    """Name everything the result depends on."""
    recipe = [source, Path(__file__).read_bytes(), repr(KINDS).encode()]
    return hashlib.sha256(b"\0".join(recipe)).hexdigest()


def ensure_schema(target: Path, *, force: bool = False) -> bool:
    """Write the schema file unless it is up to date.

    Args:
        target: the file to write; its folder is made.
        force: write it in any case.

    Returns:
        Whether it was written.

    Raises:
        SchemaBuildError: the definitions are not to be had.
    """
    source = find_source().read_bytes()
    if not force and _read_fingerprint(target) == _fingerprint(source):
        return False
    text = json.dumps(build_data(source), separators=(",", ":"), ensure_ascii=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(lzma.compress(text.encode(), preset=6))
    part.replace(target)
    return True


def _read_fingerprint(target: Path) -> str:
    """Return what the built file was made from, empty where there is none."""
    try:
        with lzma.open(target) as file:
            head = file.read(120).decode("utf-8", "replace")
    except (OSError, EOFError, lzma.LZMAError):
        return ""
    words = head.split('"')
    return words[3] if len(words) > 3 and words[1] == "fingerprint" else ""


class CustomBuildHook(_Hook):  # type: ignore[type-arg]
    """Makes the schema file before a wheel, also an editable one, is built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build the file; the wheel includes it as an artifact."""
        if self.target_name == "wheel":
            ensure_schema(Path(self.root) / TARGET)


def main() -> int:
    """Build the file from the command line."""
    parser = argparse.ArgumentParser(description="Build Podyard's schema data.")
    parser.add_argument("--output", type=Path, default=ROOT / TARGET)
    parser.add_argument("--force", action="store_true", help="also when up to date")
    arguments = parser.parse_args()
    try:
        written = ensure_schema(arguments.output, force=arguments.force)
    except SchemaBuildError as error:
        sys.stderr.write(f"build_schema: {error}\n")
        return 1
    state = "written" if written else "up to date"
    sys.stdout.write(f"{arguments.output}: {state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
