"""Unit tests run on fake time: a test that sleeps 100 s takes none."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each unit test a loop whose clock jumps."""
    for item in items:
        if "tests/unit/" in str(item.path):
            item.add_marker(pytest.mark.looptime)
