"""The long fault suite: only when it is asked for by its directory."""

import pytest


def pytest_addoption(parser):
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=200, help="how many kills")
    group.addoption("--seed", type=int, help="replay the schedule of this seed")
    group.addoption(
        "--within", type=float, default=1e9, help="begin no round after so many seconds"
    )


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/faults/" in str(item.path):
            item.add_marker(pytest.mark.faults)
