"""A directory of manifests, followed by inotify."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.lib.clock import SystemClock
from podyard.node.sources.build import ManifestError
from podyard.node.sources.manifest_dir import ManifestDirSource

pytestmark = pytest.mark.integration

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers: [{{name: c, image: "{image}"}}]
"""


class Sink:
    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.ready = asyncio.Event()
        self.changed = asyncio.Event()
        self.reports: list[tuple[str, str]] = []

    def take_pod(self, source: str, pod: Pod) -> None:
        self.pods[pod.uid] = pod
        self.changed.set()

    def drop_pod(self, source: str, pod: Pod) -> None:
        del self.pods[pod.uid]
        self.changed.set()

    def source_ready(self, source: str) -> None:
        self.ready.set()

    def report(self, path: str, error: str) -> None:
        self.reports.append((Path(path).name, error))
        self.changed.set()

    @property
    def images(self) -> dict[str, str]:
        return {p.name: p.spec.containers[0].image for p in self.pods.values()}

    async def becomes(self, **images: str) -> None:
        wanted = {f"{name}-n1": image for name, image in images.items()}
        async with asyncio.timeout(5):
            while self.images != wanted:
                self.changed.clear()
                await self.changed.wait()


def refuse(document: Document) -> Document:
    if document["spec"]["containers"][0]["image"] == "bad":
        raise ManifestError("spec.containers[0].image: Invalid value")
    return document


@asynccontextmanager
async def following(directory: Path) -> AsyncIterator[Sink]:
    sink = Sink()
    source = ManifestDirSource(
        directory,
        "n1",
        sink,
        prepare=refuse,
        report=sink.report,
        clock=SystemClock(),
        blocking=asyncio.to_thread,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run())
        await sink.ready.wait()
        yield sink
        task.cancel()


def write(directory: Path, name: str, image: str = "i:1") -> None:
    (directory / f"{name}.yaml").write_text(MANIFEST.format(name=name, image=image))


async def test_files_come_change_and_go(tmp_path: Path) -> None:
    write(tmp_path, "a")
    async with following(tmp_path) as sink:
        assert sink.images == {"a-n1": "i:1"}

        write(tmp_path, "b")
        await sink.becomes(a="i:1", b="i:1")
        write(tmp_path, "a", "i:2")
        await sink.becomes(a="i:2", b="i:1")
        (tmp_path / "b.yaml").unlink()
        await sink.becomes(a="i:2")


async def test_a_file_moved_into_place_is_seen(tmp_path: Path) -> None:
    async with following(tmp_path) as sink:
        draft = tmp_path / ".a.yaml.swp"
        draft.write_text(MANIFEST.format(name="a", image="i:1"))
        await asyncio.sleep(0.2)
        assert sink.images == {}

        draft.rename(tmp_path / "a.yaml")
        await sink.becomes(a="i:1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("kind: [", "yaml:", id="no-yaml"),
        pytest.param("kind: Service\napiVersion: v1", "not a Pod", id="no-pod"),
        pytest.param(
            MANIFEST.format(name="x", image="bad"), "Invalid value", id="invalid"
        ),
        pytest.param("", "empty", id="empty"),
        pytest.param("- 1", "not an object", id="a-list"),
        pytest.param("\x00\x01", "yaml:", id="binary"),
    ],
)
async def test_a_broken_file_is_reported_and_disturbs_nobody(
    tmp_path: Path, text: str, error: str
) -> None:
    write(tmp_path, "good")
    async with following(tmp_path) as sink:
        (tmp_path / "broken.yaml").write_text(text)
        write(tmp_path, "later")
        await sink.becomes(good="i:1", later="i:1")

        assert [name for name, _ in sink.reports] == ["broken.yaml"]
        assert error in sink.reports[0][1]


async def test_a_file_that_breaks_keeps_the_pod_it_was(tmp_path: Path) -> None:
    write(tmp_path, "a")
    async with following(tmp_path) as sink:
        (tmp_path / "a.yaml").write_text("kind: [")
        async with asyncio.timeout(5):
            while not sink.reports:
                await asyncio.sleep(0.01)

        assert sink.images == {"a-n1": "i:1"}
        write(tmp_path, "a", "i:2")
        await sink.becomes(a="i:2")


def as_document(name: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    }


async def test_json_and_lists_are_manifests_too(tmp_path: Path) -> None:
    items = [as_document("b"), as_document("c")]
    many = {"apiVersion": "v1", "kind": "PodList", "items": items}
    (tmp_path / "a.json").write_text(json.dumps(as_document("a")))
    (tmp_path / "list.json").write_text(json.dumps(many))

    async with following(tmp_path) as sink:
        assert set(sink.images) == {"a-n1", "b-n1", "c-n1"}


async def test_a_directory_that_is_not_there_has_no_pods(tmp_path: Path) -> None:
    async with following(tmp_path / "none") as sink:
        assert sink.images == {}
        assert sink.reports == []
