"""``podyard down``."""

import argparse
import asyncio
from typing import Final

from podyard.cli.control import (
    NotAnsweringError,
    NotRunningError,
    ask,
    listening_pid,
)
from podyard.cli.parts import Command, CommandError, UsageError
from podyard.cli.progress import Progress
from podyard.cli.settings import config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grace",
        metavar="SPAN",
        help="how long Pods may take to stop, all together (default: what "
        "shutdownGracePeriod and its kin say, else 10s)",
    )
    parser.add_argument(
        "--keep-pods",
        action="store_true",
        help="stop Podyard only; containers run on and are adopted by the next up",
    )
    parser.add_argument(
        "--purge", action="store_true", help="delete the data directory too"
    )


def _run(args: argparse.Namespace) -> int:
    from podyard.app import teardown  # noqa: PLC0415 - keeps --help quick
    from podyard.app.config import STOP_GRACE_S  # noqa: PLC0415
    from podyard.app.logs import set_up_logging  # noqa: PLC0415
    from podyard.lib.durations import parse_duration  # noqa: PLC0415

    if args.keep_pods and args.purge:
        raise UsageError("--keep-pods and --purge exclude each other")
    try:
        asked_s = parse_duration(args.grace) if args.grace is not None else None
    except ValueError as error:
        raise UsageError(f"--grace: {error}") from error
    config = config_of(args)
    set_up_logging("error", None)
    progress = Progress()
    wish = {"graceSeconds": asked_s, "keepPods": args.keep_pods}
    grace_s, pid = STOP_GRACE_S if asked_s is None else asked_s, 0
    try:
        status = ask(config.name, "GET", "/status")
        pid = int(status["pid"])
        if asked_s is None:
            grace_s = float(status.get("stopGraceSeconds", grace_s))
        with progress.step(
            "Podyard stopped" if args.keep_pods else "Pods and Podyard stopped"
        ):
            ask(config.name, "POST", "/stop", wish)
            teardown.wait_for_exit(pid, within_s=grace_s + 30.0)
    except NotRunningError:
        progress.note(f'instance "{config.name}" is not running; cleaning up')
    except (NotAnsweringError, TimeoutError):
        # Nothing is lost by it: whatever dies at any line starts over from what it
        # finds, and the clean-up below ends what is left.
        pid = pid or listening_pid(config.name)
        progress.note(f"Podyard (pid {pid}) did not stop in time and is killed")
        teardown.kill(pid)
    if args.keep_pods:
        return 0
    try:
        with progress.step("runtime stopped, host clean"):
            asyncio.run(teardown.remove_instance(config, grace_s=grace_s))
        if args.purge and not config.data_dir.exists():
            progress.note(f"there is no {config.data_dir}; name it with --data-dir")
        elif args.purge:
            with progress.step(f"{config.data_dir} deleted"):
                teardown.purge(config.data_dir)
    except teardown.TeardownError as error:
        raise CommandError(str(error)) from error
    return 0


PART: Final = Command(
    name="down",
    help="stop the Pods, the runtime and Podyard; objects are kept",
    arguments=_arguments,
    run=_run,
)
