"""What a runtime can, by its name and version."""

import pytest

from podyard.api.observed import RuntimeVersion
from podyard.app.runtimes import mounts_images


@pytest.mark.parametrize(
    ("name", "version", "can"),
    [
        ("containerd", "1.6.20~ds1", False),
        ("containerd", "1.7.27", False),
        ("containerd", "v2.0.5", False),
        ("containerd", "v2.1.0-rc.1", True),
        ("containerd", "2.10.0", True),
        ("containerd", "3.0", True),
        ("cri-o", "1.30.3", False),
        ("cri-o", "1.31.0", True),
        ("docker", "27.0.1", False),
        ("containerd", "", False),
    ],
)
def test_image_volumes_need_a_runtime_that_has_them(name, version, can):
    assert mounts_images(RuntimeVersion(name, version, "v1")) is can
