"""Argument parsing, exit codes, and the one place where errors become sentences.

Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 not running; 4 the host lacks
something needed; 130 interrupted.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import podyard
from podyard.cli import commands
from podyard.cli.parts import Command, CommandError, UsageError
from podyard.lib.parts import load_parts, part_names

#: Commands that show the whole command line.
_TELL_OF_ALL: Final = frozenset({"completion"})


def build_parser(parts: Sequence[Command]) -> argparse.ArgumentParser:
    """Return the whole parser, one subparser a command."""
    parser = argparse.ArgumentParser(
        prog="podyard",
        description="Kubernetes Pods on this machine: API server, scheduler and node "
        "agent in one program.",
    )
    parser.add_argument(
        "--version", action="version", version=f"podyard {podyard.__version__}"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for part in parts:
        sub = subparsers.add_parser(part.name, help=part.help, description=part.help)
        sub.add_argument(
            "--name",
            default=None,
            metavar="NAME",
            help="which instance on this machine (default: default; env PODYARD_NAME)",
        )
        sub.add_argument(
            "--data-dir",
            default=None,
            metavar="DIR",
            help="where its data is (default: /var/lib/podyard/NAME; "
            "env PODYARD_DATA_DIR)",
        )
        part.arguments(sub)
        sub.set_defaults(part=part)
    return parser


def _load_commands(argv: Sequence[str]) -> tuple[Command, ...]:
    """Load the command that is named alone; all of them where all are asked for."""
    named = part_names(commands).intersection(argv[:1]) - _TELL_OF_ALL
    return load_parts(commands, Command, named or None)


def run(argv: Sequence[str], parts: Sequence[Command] | None = None) -> int:
    """Parse and run; turn every failure into one line on stderr.

    Args:
        argv: the arguments.
        parts: the commands there are; all of Podyard's unless given.

    Returns:
        The exit code.
    """
    parser = build_parser(_load_commands(argv) if parts is None else parts)
    args = parser.parse_args(argv)
    args.root_parser = parser
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    part: Command = args.part
    try:
        return part.run(args)
    except UsageError as error:
        print(f"podyard {part.name}: {error}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"podyard {part.name}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; a second flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - people get a sentence, not a traceback
        return _report_fault(part.name, error)


def _report_fault(command: str, error: Exception) -> int:
    """Say in one line that we have made a mistake; the frames' variables stay here."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    text = f"{type(cause).__name__}: {cause}".rstrip(": ")
    if os.environ.get("PODYARD_LOG_LEVEL") == "debug":
        traceback.print_exception(error)
        hint = ""
    else:
        hint = " (PODYARD_LOG_LEVEL=debug tells where)"
    print(f"podyard {command}: internal error: {text}{hint}", file=sys.stderr)
    return 1
