"""``podyard image``: the images on this node."""

import argparse
from typing import Final

from podyard.cli.parts import Command
from podyard.cli.settings import add_action, add_places


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    ls = add_action(actions, "ls", "list the images on this node")
    ls.add_argument("-q", "--quiet", action="store_true", help="print ids only")
    _output(ls)

    pull = add_action(actions, "pull", "pull an image with the node's own credentials")
    pull.add_argument("image", metavar="IMAGE")
    _output(pull)

    load = add_action(
        actions, "load", "bring in images from a docker-save or OCI-layout tar"
    )
    load.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="the archive, gzipped or not; - for standard input (default)",
    )

    save = add_action(
        actions,
        "save",
        "write images as an OCI-layout tar, which docker load takes too",
    )
    save.add_argument("images", metavar="IMAGE", nargs="+")
    save.add_argument(
        "-o",
        "--output",
        dest="file",
        metavar="FILE",
        default="-",
        help="where to; - for standard output (default)",
    )

    rm = add_action(
        actions,
        "rm",
        "remove images, or one of the names of an image that has several",
    )
    rm.add_argument("images", metavar="IMAGE", nargs="+", help="a name or an id")
    rm.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="also when a container uses it, or it is pinned",
    )

    inspect = add_action(
        actions, "inspect", "print all that is known of images, as JSON"
    )
    inspect.add_argument("images", metavar="IMAGE", nargs="+", help="a name or an id")

    for action in (ls, pull, load, save, rm, inspect):
        add_places(action, runtime=True)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _run(args: argparse.Namespace) -> int:
    from podyard.cli.images import ACTIONS  # noqa: PLC0415 - keeps --help quick

    return ACTIONS[args.action](args)


PART: Final = Command(
    name="image",
    help="list, pull, load, save, remove and inspect the images on this node",
    arguments=_arguments,
    run=_run,
)
