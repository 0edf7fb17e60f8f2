"""``podyard up``."""

import argparse
import os
from typing import Final

from podyard.cli.parts import Command, CommandError, UsageError
from podyard.cli.progress import Progress
from podyard.cli.settings import add_settings, config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument(
        "-d", "--detach", action="store_true", help="run in the background"
    )
    parser.add_argument(
        "--wait",
        default=None,
        metavar="SPAN",
        help="with --detach, how long to wait for the node to be Ready (default: 30s)",
    )


def _run(args: argparse.Namespace) -> int:
    from podyard.app import daemon  # noqa: PLC0415 - keeps --help quick
    from podyard.app.starting import StartError  # noqa: PLC0415
    from podyard.lib.durations import parse_duration  # noqa: PLC0415

    config = config_of(args)
    if os.geteuid() != 0:
        raise CommandError(
            "needs root: containers, mounts and networks are made (sudo podyard up)"
        )
    try:
        wait_s = parse_duration(args.wait or "30s")
    except ValueError as error:
        raise UsageError(f"--wait: {error}") from error
    progress = Progress()
    try:
        if args.detach:
            daemon.run_detached(config, wait_s=wait_s, report=progress.done)
        else:
            progress.note(f"log: {daemon.log_file_of(config)}")
            daemon.run_foreground(
                config, report=progress.done, log_file=daemon.log_file_of(config)
            )
            progress.note("stopped; containers run on (podyard down stops them, too)")
    except StartError as error:
        raise CommandError(str(error), code=error.code) from error
    return 0


PART: Final = Command(
    name="up",
    help="start Podyard: API server, scheduler and node agent",
    arguments=_arguments,
    run=_run,
)
