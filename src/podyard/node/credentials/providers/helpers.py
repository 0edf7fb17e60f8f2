"""Docker's credential helpers, for the node's own files only.

A Secret may name helpers, too; those are never run, since whoever writes a Secret
must not choose programs of the node.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from typing import Final

import structlog

from podyard.api.runtime import ImageAuth
from podyard.lib.aio import SharedCalls
from podyard.node.credentials.providers.decide import (
    ProviderAnswerError,
    parse_helper_answer,
)
from podyard.node.credentials.providers.programs import ProgramError, run_program

log = structlog.get_logger()

_PREFIX: Final = "docker-credential-"


class HelperError(Exception):
    """A helper gave no credentials; the message holds nothing that it wrote."""


class CredentialHelpers:
    """Asks helpers; equal questions at one time are asked once.

    Args:
        environment: theirs; ``PATH`` says where they are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._in_flight: SharedCalls[ImageAuth] = SharedCalls()

    async def get(self, name: str, server: str) -> ImageAuth:
        """Return what a helper has for a server.

        Raises:
            HelperError: it has nothing, cannot be run or answers nonsense.
        """
        return await self._in_flight.share(
            (name, server), lambda: self._ask(name, server)
        )

    async def _ask(self, name: str, server: str) -> ImageAuth:
        program = f"{_PREFIX}{name}"
        if os.sep in name or not name:
            raise HelperError(f'"{name}" is no name of a credential helper')
        path = self._environment.get("PATH", os.defpath)
        found = await asyncio.to_thread(shutil.which, program, path=path)
        if found is None:
            raise HelperError(f"{program} is not in the PATH")
        try:
            answer = await run_program(
                [found, "get"], server.encode(), environment=self._environment
            )
            return parse_helper_answer(answer)
        except (ProgramError, ProviderAnswerError) as error:
            log.warning("credential_helper_failed", helper=name, error=str(error))
            raise HelperError(f"{program}: {error}") from error
