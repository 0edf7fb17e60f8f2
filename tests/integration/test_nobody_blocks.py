"""The guard of this folder: it sees a coroutine of Podyard that blocks."""

import time
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError

import podyard

pytestmark = pytest.mark.integration


async def test_a_coroutine_of_podyard_that_blocks_fails() -> None:
    code = "import time\nasync def rest():\n    time.sleep(0.001)\n"
    made: dict[str, Any] = {}
    exec(compile(code, Path(podyard.__file__).with_name("made_up.py"), "exec"), made)

    with pytest.raises(BlockingError, match=r"time\.sleep"):
        await made["rest"]()


async def test_a_test_itself_may_block() -> None:
    time.sleep(0.001)
