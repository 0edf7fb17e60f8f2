"""What a subcommand is."""

import argparse
from collections.abc import Callable

from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Attributes:
        name: as typed.
        help: one line for ``podyard --help``.
        arguments: adds its own arguments to the parser it is given.
        run: does the work; returns the exit code. It imports what is heavy itself,
            so that ``podyard --help`` stays quick.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """What the person typed cannot be done; exit code 2."""


class CommandError(Exception):
    """The command failed for a reason worth one clear sentence.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
