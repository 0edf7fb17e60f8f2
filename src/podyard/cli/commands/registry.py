"""``podyard registry``: the node's registry credentials, and rehearsals of pulls."""

import argparse
from typing import Final

from podyard.cli.parts import Command
from podyard.cli.settings import add_action, add_places


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    login = add_action(
        actions,
        "login",
        "check a user and password with a registry and keep them for this node",
    )
    login.add_argument("registry", metavar="REGISTRY", help="host, or host:port")
    login.add_argument("-u", "--username", default="", metavar="USER")
    login.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input",
    )

    logout = add_action(actions, "logout", "forget a registry's password")
    logout.add_argument("registry", metavar="REGISTRY", help="host, or host:port")

    ls = add_action(
        actions,
        "ls",
        "list the registries with credentials, and where each comes from",
    )
    _output(ls)

    test = add_action(
        actions,
        "test",
        "go through a pull without pulling: which credentials would be tried, in "
        "what order, and what the registry answers (exit code 1: it would fail)",
    )
    test.add_argument("image", metavar="IMAGE")
    test.add_argument(
        "-n",
        "--namespace",
        default="",
        metavar="NAMESPACE",
        help="count the pull secrets of a Pod in this namespace too",
    )
    test.add_argument(
        "--service-account",
        default="",
        metavar="NAME",
        help="of this ServiceAccount (default: default)",
    )
    _output(test)

    for action in (login, logout, ls, test):
        add_places(action)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _run(args: argparse.Namespace) -> int:
    from podyard.cli.registries import run  # noqa: PLC0415 - keeps --help quick

    return run(args)


PART: Final = Command(
    name="registry",
    help="the node's registry credentials: login, logout, ls, and test of an image",
    arguments=_arguments,
    run=_run,
)
