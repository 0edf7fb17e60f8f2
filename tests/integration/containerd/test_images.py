"""Images come into containerd as archives: ours, docker save's and OCI layouts."""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podyard.containerd.archives import ImageArchiveError
from podyard.containerd.own_images import (
    ImageSpec,
    RootfsFile,
    build_archive,
    busybox_image,
    sandbox_image,
    write_archive,
)
from podyard.cri.services import CRIError
from support.containerd import (
    RunningContainerd,
    connect,
    container_config,
    find_busybox,
    running_containerd,
    sandbox_config,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningContainerd]:
    tmp = tmp_path_factory.mktemp("images")
    with running_containerd(tmp, with_busybox=False) as running:
        yield running


async def run_once(running: RunningContainerd, image: str, *command: str) -> bytes:
    """Run a command in a container of an image; return its output."""
    async with connect(running) as services:
        while await services.images.image_status(image) is None:
            await asyncio.sleep(0.005)
        sandbox = sandbox_config(running.row)
        sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
        try:
            config = container_config(sandbox, "sleep", "inf", image=image)
            container_id = await services.runtime.create_container(
                sandbox_id, config, sandbox
            )
            await services.runtime.start_container(container_id)
            result = await services.runtime.exec_sync(
                container_id, command, timeout_s=5
            )
        finally:
            await services.runtime.stop_pod_sandbox(sandbox_id)
            await services.runtime.remove_pod_sandbox(sandbox_id)
    return result.stdout


def docker_save(spec: ImageSpec, path: Path, *, compress: bool = False) -> None:
    """Write an image as an old ``docker save`` does."""
    archive = build_archive(spec)
    (target,) = archive.targets.values()
    manifest = json.loads(archive.blobs[target.digest].open().read())
    config = archive.blobs[manifest["config"]["digest"]].open().read()
    layer = archive.blobs[manifest["layers"][0]["digest"]].open().read()
    name = hashlib.sha256(config).hexdigest() + ".json"
    index = [{"Config": name, "RepoTags": [spec.name], "Layers": ["abc/layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, data in {
            name: config,
            "abc/layer.tar": layer,
            "manifest.json": json.dumps(index).encode(),
        }.items():
            member = tarfile.TarInfo(entry)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    path.write_bytes(gzip.compress(data) if compress else data)


def spec_of(name: str) -> ImageSpec:
    spec = busybox_image(find_busybox(), ["sh", "sleep", "cat"], name=name)
    files = {**spec.files, "etc/name": RootfsFile(0o644, name.encode())}
    return ImageSpec(name, files, spec.config)


async def test_own_image_runs_and_is_not_imported_twice(running):
    spec = spec_of("podyard.local/own:1")

    first = await running.runtime.importer.ensure(spec, labels={})
    second = await running.runtime.importer.ensure(spec, labels={})

    assert (first, second) == (True, False)
    assert await run_once(running, spec.name, "cat", "/etc/name") == spec.name.encode()


async def test_oci_layout_is_imported(running, tmp_path):
    spec = spec_of("registry.test/oci:1")
    write_archive(build_archive(spec), tmp_path / "oci.tar")

    names = await running.runtime.importer.import_file(tmp_path / "oci.tar")

    assert names == (spec.name,)
    assert await run_once(running, spec.name, "cat", "/etc/name") == spec.name.encode()


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
async def test_docker_save_archive_is_imported(running, tmp_path, compress):
    spec = spec_of(f"registry.test/saved:{compress}".lower())
    docker_save(spec, tmp_path / "saved.tar", compress=compress)

    names = await running.runtime.importer.import_file(tmp_path / "saved.tar")

    assert names == (spec.name,)
    assert await run_once(running, spec.name, "cat", "/etc/name") == spec.name.encode()


async def test_archive_imported_again_moves_the_name(running, tmp_path):
    old, new = spec_of("registry.test/moved:1"), spec_of("registry.test/moved:1")
    new = ImageSpec(
        new.name, {**new.files, "etc/name": RootfsFile(0o644, b"new")}, new.config
    )
    for number, spec in enumerate((old, new, new)):
        path = tmp_path / f"{number}.tar"
        write_archive(build_archive(spec), path)
        await running.runtime.importer.import_file(path)

    await asyncio.sleep(0.1)
    assert await run_once(running, new.name, "cat", "/etc/name") == b"new"


async def test_imported_image_survives_containerds_collector(running):
    spec = spec_of("podyard.local/kept:1")
    await running.runtime.importer.ensure(spec, labels={})
    async with connect(running) as services:
        while await services.images.image_status(spec.name) is None:
            await asyncio.sleep(0.005)
        # Removing an image makes containerd collect what nothing refers to.
        other = spec_of("podyard.local/other:1")
        await running.runtime.importer.ensure(other, labels={})
        while await services.images.image_status(other.name) is None:
            await asyncio.sleep(0.005)
        await services.images.remove_image(other.name)
        await asyncio.sleep(0.5)

        assert await services.images.image_status(other.name) is None
    assert await run_once(running, spec.name, "cat", "/etc/name") == spec.name.encode()


async def test_damaged_blob_is_refused(running, tmp_path):
    spec = spec_of("registry.test/damaged:1")
    path = tmp_path / "damaged.tar"
    write_archive(build_archive(spec), path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"root:x:0:0")
    data[at : at + 4] = b"evil"
    path.write_bytes(bytes(data))

    with pytest.raises(ImageArchiveError, match="does not match the digest"):
        await running.runtime.importer.import_file(path)

    async with connect(running) as services:
        assert await services.images.image_status(spec.name) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"not a tar at all", "not a tar archive", id="text"),
        pytest.param(b"", "not a tar archive", id="empty"),
        pytest.param(b"\x1f\x8bbroken", "bad gzip", id="gzip"),
    ],
)
async def test_other_files_are_refused(running, tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(ImageArchiveError, match=message):
        await running.runtime.importer.import_file(path)


async def test_missing_file_is_told(running, tmp_path):
    with pytest.raises(ImageArchiveError, match="No such file"):
        await running.runtime.importer.import_file(tmp_path / "none.tar")


async def test_sandbox_image_is_named_after_its_program(running):
    catatonit = Path("/usr/bin/catatonit")

    one = sandbox_image(catatonit, version="1")
    two = sandbox_image(catatonit, version="1")

    assert one == two
    assert one.name.startswith("podyard.local/sandbox:1-")
    assert build_archive(one).targets == build_archive(two).targets


async def test_pull_without_a_registry_fails_as_a_cri_error(running):
    async with connect(running) as services:
        with pytest.raises(CRIError):
            await services.images.pull_image("127.0.0.1:1/none:1", auth=None)
