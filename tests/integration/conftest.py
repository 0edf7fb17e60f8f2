"""Everything here runs in this process: whoever blocks the loop fails the test."""

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

import podyard

SOURCE = str(Path(podyard.__file__).parent)
TESTS = str(Path(__file__).parents[1])
#: What may block, by file.
MAY_BLOCK = {
    # Done once, before anybody is served.
    "podyard/app/schema_data.py": {"load_schema_data"},
    "podyard/lib/parts.py": {"load_parts", "part_names"},
    # A command of its own, beside which nothing runs.
    "podyard/app/admin.py": {"admin_client"},
    # The kernel answers from memory.
    "podyard/containerd/processes.py": {"read_process"},
    # Whether a program could be started is known before it does anything.
    "/subprocess.py": {"_execute_child"},
}
#: What is not looked at: gRPC joins its poller when the last channel closes.
LOCKS = ("threading.Lock.acquire", "threading.Lock.acquire_lock")
#: Where a module is imported.
IMPORTS = "<frozen importlib._bootstrap"


def is_the_tests_own() -> bool:
    """Say whether a test itself calls something that blocks, or an import does.

    Then no coroutine of Podyard is between the test and the call.
    """
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(IMPORTS):
            return True
        if file.startswith(TESTS) and file != __file__:
            return True
        if file.startswith(SOURCE) and frame.f_code.co_flags & (
            inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
        ):
            return False
        frame = frame.f_back
    return False


def or_the_tests_own(may_block: Callable[..., bool]) -> Callable[..., bool]:
    """Return a predicate that lets tests block, besides what it let block before."""

    def predicate(*args: Any, **kwargs: Any) -> bool:
        return may_block(*args, **kwargs) or is_the_tests_own()

    return predicate


@pytest.fixture(autouse=True)
def nobody_blocks_the_loop() -> Iterator[None]:
    """Make blocking calls in coroutines of Podyard an error."""
    blockers = BlockBuster("podyard")
    for name in LOCKS:
        del blockers.functions[name]
    for function in blockers.functions.values():
        function.can_block_predicate = or_the_tests_own(function.can_block_predicate)
        for file, names in MAY_BLOCK.items():
            function.can_block_in(file, names)
    blockers.activate()
    try:
        yield
    finally:
        blockers.deactivate()
