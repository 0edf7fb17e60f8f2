"""One Podyard for all end-to-end tests that do not kill it."""

import os
from pathlib import Path

import pytest

from support.api import Api
from support.instance import running_podyard


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def instance(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root: containers are run for real")
    home: Path = tmp_path_factory.mktemp("podyard")
    (home / "static").mkdir()
    (home / "config.yaml").write_text(
        f"staticPodPath: {home}/static\nruntimes: [{{name: second}}]\n"
    )
    config = ("--config", str(home / "config.yaml"))
    with running_podyard(f"e2e-{os.getpid()}", home / "data", *config) as running:
        yield running


@pytest.fixture(scope="session")
def static_dir(instance) -> Path:
    """Where that instance looks for manifests."""
    return instance.data_dir.parent / "static"


@pytest.fixture(scope="session")
def api(instance):
    """The API of that instance, as its admin."""
    client = Api(instance.kubeconfig)
    yield client
    client.close()
