"""Argument parsing, exit codes, and the one place where errors become sentences.

Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 not running; 4 the host lacks
something needed; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import podyard
from podyard.cli import commands
from podyard.cli.parts import Command, CommandError, UsageError
from podyard.lib.parts import load_parts


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


def run(argv: Sequence[str]) -> int:
    """Parse and run; turn every expected failure into one line on stderr."""
    parser = build_parser(load_parts(commands, Command))
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
