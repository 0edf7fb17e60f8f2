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


def _run(args: argparse.Namespace) -> int:
    from podyard.api.errors import ApiError  # noqa: PLC0415 - keeps --help quick
    from podyard.app.admin import AdminError, log_of  # noqa: PLC0415

    config = config_of(args)
    try:
        text = asyncio.run(
            log_of(
                config,
                namespace=args.namespace,
                pod=args.pod,
                container=args.container,
            )
        )
    except ApiError as error:
        raise CommandError(error.message) from error
    except AdminError as error:
        raise CommandError(str(error)) from error
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    return 0


PART: Final = Command(
    name="logs",
    help="print a Pod's log (kubectl logs -f follows it)",
    arguments=_arguments,
    run=_run,
)
