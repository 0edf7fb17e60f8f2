"""``podyard completion``: a script for the shell, made from the argument parser."""

import argparse
from typing import Final

from podyard.cli.parts import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _run(args: argparse.Namespace) -> int:
    # The parser is handed down on the namespace: parts do not import the command line.
    import shtab  # noqa: PLC0415 - only this command needs it

    print(shtab.complete(args.root_parser, shell=args.shell))
    return 0


PART: Final = Command(
    name="completion",
    help="print a completion script: source <(podyard completion bash)",
    arguments=_arguments,
    run=_run,
)
