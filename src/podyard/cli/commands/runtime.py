"""``podyard runtime``: runtime handlers, and configuration for other runtimes."""

import argparse
from typing import Final

from podyard.cli.parts import Command
from podyard.cli.settings import add_places


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser(
        "ls", help="each handler: whether the runtime accepts it, features, users"
    )
    ls.add_argument("-o", "--output", choices=("table", "json"), default="table")
    config = actions.add_parser(
        "config", help="print runtimes: of the config as another runtime's settings"
    )
    config.add_argument(
        "--for",
        dest="target",
        choices=("containerd", "crio"),
        required=True,
        help="whose settings",
    )
    for action in (ls, config):
        add_places(action)


def _run(args: argparse.Namespace) -> int:
    from podyard.cli.explanations import run_runtime  # noqa: PLC0415 - quick --help

    return run_runtime(args)


PART: Final = Command(
    name="runtime",
    help="runtime handlers: ls, and config for containerd or CRI-O of your own",
    arguments=_arguments,
    run=_run,
)
