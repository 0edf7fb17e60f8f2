import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podyard.api.scheme import KINDS, Kind
from support.definitions import load_build_schema, load_definitions

build = load_build_schema()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_to_a_kept_definition() -> None:
    definitions = load_definitions()

    broken = [
        reference
        for definition in definitions.values()
        for reference in references(definition)
        if reference.removeprefix("#/definitions/") not in definitions
    ]

    assert broken == []


@pytest.mark.parametrize("kind", KINDS, ids=[kind.qualified_resource for kind in KINDS])
def test_every_served_kind_and_its_list_has_a_definition(kind: Kind) -> None:
    named = {
        (gvk["group"], gvk["version"], gvk["kind"])
        for definition in load_definitions().values()
        for gvk in definition.get("x-kubernetes-group-version-kind", ())
    }

    assert (kind.group, kind.version, kind.kind) in named
    assert (kind.group, kind.version, kind.list_kind) in named


def test_kinds_nobody_serves_are_left_out() -> None:
    names = load_definitions()

    assert "io.k8s.api.storage.v1.CSIDriver" not in names
    assert "io.k8s.api.networking.v1.Ingress" not in names


def test_no_type_is_a_choice_with_null() -> None:
    def types(value: Any, *, named: bool = False) -> Iterator[Any]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "type" and not named:
                    yield item
                yield from types(item, named=key == "properties")

    found = {str(kind) for kind in types(load_definitions(), named=True)}

    assert found == {"array", "boolean", "integer", "object", "string"}


def test_api_version_and_kind_are_plain_strings() -> None:
    pod = load_definitions()["io.k8s.api.core.v1.Pod"]

    assert "enum" not in pod["properties"]["kind"]
    assert "enum" not in pod["properties"]["apiVersion"]


def test_descriptions_and_patch_metadata_survive() -> None:
    spec = load_definitions()["io.k8s.api.core.v1.PodSpec"]
    containers = spec["properties"]["containers"]

    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["description"].startswith("List of containers")


def test_list_keys_that_may_be_absent_have_their_default() -> None:
    port = load_definitions()["io.k8s.api.core.v1.ContainerPort"]

    assert port["properties"]["protocol"]["default"] == "TCP"


def test_delete_options_speak_only_for_served_groups() -> None:
    name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    gvks = load_definitions()[name]["x-kubernetes-group-version-kind"]

    served = {(kind.group, kind.version) for kind in KINDS}
    assert {(gvk["group"], gvk["version"]) for gvk in gvks} <= served


def test_a_missing_kind_is_named() -> None:
    source = json.loads(build.find_source().read_bytes())
    del source["$defs"]["io.k8s.api.core.v1.Pod"]

    with pytest.raises(build.SchemaBuildError, match="v1 Pod"):
        build.build_definitions(source)


def test_the_file_is_written_once_and_then_found_up_to_date(tmp_path: Path) -> None:
    target = tmp_path / "_schema" / "kubernetes.json.xz"

    assert build.ensure_schema(target) is True
    assert build.ensure_schema(target) is False

    data = json.loads(lzma.decompress(target.read_bytes()))
    assert data["kubernetes"] == build.KUBERNETES
    assert data["definitions"] == load_definitions()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no xz at all", id="no-xz"),
        pytest.param(lzma.compress(b'{"fingerprint":"old"}'), id="of-an-older-source"),
        pytest.param(lzma.compress(b"[]")[:-8], id="cut-short"),
    ],
)
def test_a_stale_or_damaged_file_is_written_again(
    tmp_path: Path, content: bytes
) -> None:
    target = tmp_path / "kubernetes.json.xz"
    target.write_bytes(content)

    assert build.ensure_schema(target) is True

    assert b"definitions" in lzma.decompress(target.read_bytes())
