"""Derive the protobuf wire table from Kubernetes' public API sources.

Takes the facts a decoder needs (message, field, number, kind, whether a zero is
kept) for every kind that Podyard decodes, and nothing else.

    python proto/derive_protobuf_table.py API_TREE APIMACHINERY_TREE > \
        src/podyard/api/protobuf_table.py

where the trees are checked-out ``k8s.io/api`` and ``k8s.io/apimachinery`` of the
Kubernetes release we mirror (v0.36.x).
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from podyard.api.scheme import KINDS  # noqa: E402

#: Kinds decoded besides the stored ones: package and message.
EXTRA_KINDS = (
    ("authentication.v1", "SelfSubjectReview"),
    ("authentication.v1", "TokenRequest"),
    ("authentication.v1", "TokenReview"),
    ("authorization.v1", "LocalSubjectAccessReview"),
    ("authorization.v1", "SelfSubjectAccessReview"),
    ("authorization.v1", "SelfSubjectRulesReview"),
    ("authorization.v1", "SubjectAccessReview"),
    ("autoscaling.v1", "Scale"),
    ("core.v1", "Binding"),
    ("meta.v1", "DeleteOptions"),
    ("meta.v1", "Status"),
    ("policy.v1", "Eviction"),
)

#: Messages with a form of their own in JSON.
LEAVES = {
    ("meta.v1", "Time"): "T",
    ("meta.v1", "MicroTime"): "U",
    ("meta.v1", "FieldsV1"): "F",
    ("resource", "Quantity"): "Q",
    ("intstr", "IntOrString"): "I",
    ("runtime", "RawExtension"): "R",
}
SCALARS = {"string": "s", "int32": "i", "int64": "i", "bool": "b", "bytes": "y"}
GO_SCALARS = {"bytes": "[]uint8"}

_MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^\s*(?:(optional|repeated|required) )?"
    r"(map<(\w+), *([.\w]+)>|[.\w]+) (\w+) = (\d+)",
    re.MULTILINE,
)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_SLICE = re.compile(r"^type (\w+) (\[\]\S+)", re.MULTILINE)
_GO_FIELD = re.compile(r"^\t(?:(\w+)[ \t]+)?(\S+)[ \t]+`([^`]*)`", re.MULTILINE)
_TAG = re.compile(r'(\w+):"([^"]*)"')


@dataclass(frozen=True)
class GoField:
    """What a Go struct tag says about one field."""

    json_name: str
    inline: bool
    pointer: bool
    omit_empty: bool
    type: str


@dataclass
class Package:
    """One API package: its messages and Go structs."""

    name: str
    messages: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    structs: dict[str, dict[int, GoField]] = field(default_factory=dict)
    slices: set[str] = field(default_factory=set)


def short_package(path: str) -> str:
    """Turn ``k8s.io.api.core.v1`` into ``core.v1``."""
    for prefix in (
        "k8s.io.apimachinery.pkg.apis.",
        "k8s.io.apimachinery.pkg.api.",
        "k8s.io.apimachinery.pkg.util.",
        "k8s.io.apimachinery.pkg.",
        "k8s.io.api.",
    ):
        if path.startswith(prefix):
            return path.removeprefix(prefix)
    return path


def read_package(folder: Path) -> Package:
    """Read one package's ``generated.proto`` and Go sources."""
    text = (folder / "generated.proto").read_text()
    text = re.sub(r"//[^\n]*", "", text)
    declared = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
    if declared is None:
        raise SystemExit(f"{folder}: no package line")
    package = Package(short_package(declared[1]))
    for name, body in _MESSAGE.findall(text):
        rows = []
        for label, kind, _key, value, proto_name, number in _FIELD.findall(body):
            wire = f"{{{value}" if value else kind
            if label == "repeated":
                wire = f"*{kind}"
            rows.append((proto_name, wire, int(number)))
        package.messages[name] = rows
    for source in sorted(folder.glob("*.go")):
        if source.name.startswith(("zz_", "generated")) or "_test" in source.name:
            continue
        go = source.read_text()
        package.slices.update(name for name, _ in _SLICE.findall(go))
        for name, body in _STRUCT.findall(go):
            package.structs.setdefault(name, read_struct(body, package.name))
    return package


def read_struct(body: str, package: str) -> dict[int, GoField]:
    """Read the tags of one Go struct, by protobuf number."""
    fields = {}
    for _name, go_type, tags in _GO_FIELD.findall(body):
        tag = dict(_TAG.findall(tags))
        proto = tag.get("protobuf", "-")
        if proto == "-":
            continue
        json_name, *options = tag.get("json", "").split(",")
        fields[int(proto.split(",")[1])] = GoField(
            json_name=json_name,
            inline=not json_name,
            pointer=go_type.startswith("*"),
            omit_empty="omitempty" in options or "omitzero" in options,
            type=spell_go(go_type, package),
        )
    return fields


def spell_go(go_type: str, package: str) -> str:
    """Spell a Go type as error messages do: ``v1.RestartPolicy``, no pointer."""

    def spell(match: re.Match[str]) -> str:
        alias, name = match[1], match[2]
        if alias:
            # an import alias as metav1 is not the package's own name
            home = re.sub("^(api|core|meta)", "", alias)
            return f"{home}{name}"
        return f"{package.rpartition('.')[2]}.{name}" if name[0].isupper() else name

    bare = go_type.lstrip("*").replace("byte", "uint8")
    return re.sub(r"(\w+\.)?(\w+)", spell, bare)


class Derivation:
    """Walks from the kinds to everything they contain."""

    def __init__(self, packages: dict[str, Package]) -> None:
        self.packages = packages
        self.lines: dict[str, dict[str, str]] = {}

    def add(self, package: str, message: str) -> None:
        """Add a message and what it contains."""
        done = self.lines.setdefault(package, {})
        if message in done:
            return
        done[message] = ""
        source = self.packages[package]
        rows = source.messages[message]
        if message in source.slices:
            (_, wire, _number) = rows[0]
            done[message] = f"= {self.kind(package, wire)}"
            return
        tags = source.structs[message]
        parts = []
        for proto_name, wire, number in rows:
            tag = tags.get(number)
            if tag is None:
                raise SystemExit(f"{package}.{message}.{proto_name}: no Go field")
            parts.append(self.field(package, wire, number, tag))
        done[message] = ", ".join(parts)

    def field(self, package: str, wire: str, number: int, tag: GoField) -> str:
        """Spell one field of the table."""
        kind = self.kind(package, wire)
        if tag.inline:
            return f"{number} @ {kind}"
        keep = "!" if tag.pointer or not tag.omit_empty else ""
        text = f"{number} {tag.json_name} {kind}{keep}"
        if self.spell_plain(package, wire) != tag.type:
            text += f" {tag.type}"
        return text

    def kind(self, package: str, wire: str) -> str:
        """Spell a field's kind, and take in the message it names."""
        lead = wire[0] if wire[0] in "*{" else ""
        kind = wire.removeprefix(lead)
        if kind in SCALARS:
            return lead + SCALARS[kind]
        home, message = self.locate(package, kind)
        if (home, message) in LEAVES:
            return lead + LEAVES[home, message]
        self.add(home, message)
        return lead + (message if home == package else f"{home}.{message}")

    def locate(self, package: str, kind: str) -> tuple[str, str]:
        """Find the package and name of a message kind."""
        if "." not in kind:
            return package, kind
        path, _, message = kind.lstrip(".").rpartition(".")
        return short_package(path), message

    def spell_plain(self, package: str, wire: str) -> str:
        """Spell the Go type that a wire kind suggests."""
        lead = {"*": "[]", "{": "map[string]"}.get(wire[0], "")
        kind = wire.lstrip("*{")
        if kind in SCALARS:
            return lead + GO_SCALARS.get(kind, kind)
        home, message = self.locate(package, kind)
        return f"{lead}{home.rpartition('.')[2]}.{message}"


def package_of(group: str, version: str) -> str:
    """Name the package of an API group: ``discovery.k8s.io`` is ``discovery``."""
    return f"{(group or 'core').split('.')[0]}.{version}"


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    api, machinery = Path(sys.argv[1]), Path(sys.argv[2])
    packages = {}
    for tree in (api, machinery):
        for proto in sorted(tree.rglob("generated.proto")):
            if "/runtime/schema/" in str(proto) or "testapigroup" in str(proto):
                continue
            package = read_package(proto.parent)
            packages[package.name] = package
    derivation = Derivation(packages)
    for kind in KINDS:
        for name in (kind.kind, kind.list_kind):
            derivation.add(package_of(kind.group, kind.version), name)
    for package_name, message in EXTRA_KINDS:
        derivation.add(package_name, message)
    sys.stdout.write(HEADER)
    for package_name in sorted(derivation.lines):
        sys.stdout.write(f'    "{package_name}": """\n')
        for message, line in sorted(derivation.lines[package_name].items()):
            sys.stdout.write(f"{message}: {line}\n")
        sys.stdout.write('""",\n')
    sys.stdout.write("}\n")


HEADER = '''"""The protobuf wire table: which number is which field of which kind.

Made by ``proto/derive_protobuf_table.py``; do not edit. Facts of the public
``generated.proto`` and ``types.go`` files of Kubernetes v1.36.

One message a line, fields as ``number name kind``, then ``!`` where a zero value
is kept (a pointer, or a field JSON always shows), then the Go type where the kind
does not tell it. Kinds: ``s`` string, ``i`` integer, ``b`` boolean, ``y`` bytes,
``T`` Time, ``U`` MicroTime, ``Q`` Quantity, ``I`` IntOrString, ``F`` FieldsV1,
``R`` RawExtension, or a message; ``*`` before it is a list, ``{`` a map with
string keys. The name ``@`` is a struct whose fields belong to the parent. A line
that starts with ``=`` is a message that is a list in JSON.
"""

from typing import Final

#: Messages by package.
MESSAGES: Final = {
'''

if __name__ == "__main__":
    main()
