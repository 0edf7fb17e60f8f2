"""Runs a program that gives out credentials: request in, answer out."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from podyard.lib.aio import finish

#: How long a program may take, seconds (the kubelet's limit).
TIMEOUT_S: Final = 60.0
#: How much it may answer.
MAX_ANSWER_BYTES: Final = 1024 * 1024


class ProgramError(Exception):
    """The program gave no answer; the message holds nothing that it wrote."""


async def run_program(
    command: Sequence[str],
    request: bytes,
    *,
    environment: Mapping[str, str],
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Run a program and return what it writes on its standard output.

    What it writes on standard error may hold secrets and is thrown away. The program
    and what it started are killed when time is up or the caller is cancelled.

    Raises:
        ProgramError: it cannot be run, failed, took too long or wrote too much.
    """
    try:
        stdin = await asyncio.to_thread(_in_memory, request)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        finally:
            os.close(stdin)
    except OSError as error:
        raise ProgramError(f"it cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _read(process)
            code = await process.wait()
    except TimeoutError as error:
        raise ProgramError(f"it did not end within {timeout_s:g} s") from error
    finally:
        await finish(_end(process), within_s=10)
    if code < 0:
        raise ProgramError(f"it was ended by signal {-code}")
    if code:
        raise ProgramError(f"it ended with exit code {code}")
    return answer


def _in_memory(request: bytes) -> int:
    """Return a file to read a request from; the caller closes it.

    Not a pipe that is written to, since a program need not read what it is told, and
    may be gone before. In memory, since a request may hold a token.
    """
    file = os.memfd_create("request")
    with os.fdopen(os.dup(file), "wb") as writer:
        writer.write(request)
    os.lseek(file, 0, os.SEEK_SET)
    return file


async def _read(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    answer = bytearray()
    while piece := await process.stdout.read(65536):
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES:
            raise ProgramError("its answer is too long")
    return bytes(answer)


async def _end(process: asyncio.subprocess.Process) -> None:
    # The group, since a script may have started others that hold the pipe.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
