"""Image archives are read with care, and made the same every time."""

import io
import json
import tarfile

import pytest

from podyard.containerd.archives import (
    ArchiveFile,
    ImageArchiveError,
    digest_of,
    normal_name,
)
from podyard.containerd.images import chain_ids
from podyard.containerd.own_images import (
    ImageSpec,
    RootfsFile,
    build_archive,
    is_static_program,
    write_archive,
)

SPEC = ImageSpec(
    "registry.test/app:1",
    {
        "bin": RootfsFile(0o755),
        "bin/app": RootfsFile(0o755, b"program"),
        "bin/link": RootfsFile(0o777, target="/bin/app"),
    },
    {"Cmd": ["/bin/app"]},
)


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:2", "localhost:5000/app:2"),
        ("example.com/a/b", "example.com/a/b:latest"),
        ("example.com/a@sha256:0", "example.com/a@sha256:0"),
    ],
)
def test_short_names_are_docker_hubs(reference, expected):
    assert normal_name(reference) == expected


def test_image_is_the_same_every_time():
    assert build_archive(SPEC).targets == build_archive(SPEC).targets


def test_layer_holds_files_links_and_directories():
    archive = build_archive(SPEC)
    (target,) = archive.targets.values()
    manifest = json.loads(archive.blobs[target.digest].open().read())
    layer = archive.blobs[manifest["layers"][0]["digest"]].open()

    with tarfile.open(fileobj=layer) as tar:
        members = {member.name: member for member in tar}

    assert members["bin"].isdir()
    assert members["bin/app"].mode == 0o755
    assert members["bin/link"].linkname == "/bin/app"
    assert {member.mtime for member in members.values()} == {0}


def test_written_archive_is_read_back(tmp_path):
    made = build_archive(SPEC)
    write_archive(made, tmp_path / "image.tar")

    with ArchiveFile(tmp_path / "image.tar") as file:
        read = file.read()
        content = {d: blob.open().read() for d, blob in read.blobs.items()}

    assert read.targets == made.targets
    assert set(content) == set(made.blobs)
    assert all(digest_of(data) == digest for digest, data in content.items())


def test_docker_names_count_where_the_index_has_only_a_tag(tmp_path):
    made = build_archive(SPEC)
    (target,) = made.targets.values()
    manifest = json.loads(made.blobs[target.digest].open().read())
    config = manifest["config"]["digest"].removeprefix("sha256:")
    index = {
        "manifests": [
            {
                "mediaType": target.media_type,
                "digest": target.digest,
                "size": target.size,
                "annotations": {"org.opencontainers.image.ref.name": "1"},
            }
        ]
    }
    saved = [{"Config": f"blobs/sha256/{config}", "RepoTags": ["app:1"], "Layers": []}]
    files = {
        "blobs/" + digest.replace(":", "/"): blob.open().read()
        for digest, blob in made.blobs.items()
    }
    files |= {
        "oci-layout": b"{}",
        "index.json": json.dumps(index).encode(),
        "manifest.json": json.dumps(saved).encode(),
    }
    write_tar(tmp_path / "image.tar", files)

    with ArchiveFile(tmp_path / "image.tar") as file:
        assert set(file.read().targets) == {"docker.io/library/app:1"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"a": b""}, "neither an OCI layout", id="no-image"),
        pytest.param(
            {"oci-layout": b"", "index.json": b"{"}, "not JSON", id="broken-index"
        ),
        pytest.param(
            {"oci-layout": b"", "index.json": b'{"manifests": []}'},
            "no image in it has a name",
            id="no-name",
        ),
        pytest.param(
            {"manifest.json": b'[{"Config": "c.json", "RepoTags": ["a"]}]'},
            "c.json is missing",
            id="no-config",
        ),
    ],
)
def test_archive_that_is_no_image_is_told(tmp_path, files, message):
    write_tar(tmp_path / "image.tar", files)

    with (
        ArchiveFile(tmp_path / "image.tar") as file,
        pytest.raises(ImageArchiveError, match=message),
    ):
        file.read()


def test_chain_id_covers_all_layers_below():
    one, two = chain_ids(["sha256:a", "sha256:b"])

    assert one == "sha256:a"
    assert two == digest_of(b"sha256:a sha256:b")
    assert chain_ids([]) == []


def test_script_is_no_static_program(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")

    assert not is_static_program(script)
    assert not is_static_program(tmp_path / "none")
