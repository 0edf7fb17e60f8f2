"""``podyard hooks``: deliveries of a Pod's lifecycle hooks, and their output."""

import argparse
from typing import Final

from podyard.cli.parts import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", metavar="POD")
    parser.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE")
    parser.add_argument("-c", "--container", default="", metavar="CONTAINER")
    parser.add_argument(
        "--logs",
        action="store_true",
        help="print what exec hooks have put out instead",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _run(args: argparse.Namespace) -> int:
    from podyard.cli.explanations import run_hooks  # noqa: PLC0415 - quick --help

    return run_hooks(args)


PART: Final = Command(
    name="hooks",
    help="deliveries of a Pod's PostStart and PreStop hooks, and their output",
    arguments=_arguments,
    run=_run,
)
