"""``podyard logs``: a Pod's log, without kubectl."""

import argparse
import asyncio
import sys
from typing import Final

from podyard.cli.parts import Command, CommandError
from podyard.cli.settings import config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod", metavar="POD")
    parser.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE")
    parser.add_argument("-c", "--container", default="", metavar="CONTAINER")
    parser.add_argument("-f", "--follow", action="store_true", help="go on printing")


def _run(args: argparse.Namespace) -> int:
    from podyard.api.errors import ApiError  # noqa: PLC0415 - keeps --help quick
    from podyard.app.admin import AdminError, stream_log  # noqa: PLC0415

    config = config_of(args)

    def write(chunk: bytes) -> None:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()

    try:
        asyncio.run(
            stream_log(
                config,
                namespace=args.namespace,
                pod=args.pod,
                container=args.container,
                follow=args.follow,
                write=write,
            )
        )
    except ApiError as error:
        raise CommandError(error.message) from error
    except AdminError as error:
        raise CommandError(str(error)) from error
    return 0


PART: Final = Command(
    name="logs", help="print a Pod's log", arguments=_arguments, run=_run
)
