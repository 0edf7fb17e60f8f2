"""``podyard kubeconfig``."""

import argparse
import os
from pathlib import Path
from typing import Final

from podyard.cli.parts import Command, CommandError
from podyard.cli.settings import config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--merge",
        nargs="?",
        const="",
        default=None,
        metavar="FILE",
        help="merge into FILE (default: the first of $KUBECONFIG that is not ours, "
        "else ~/.kube/config)",
    )
    group.add_argument(
        "--path", action="store_true", help="print only where the file is"
    )


def _run(args: argparse.Namespace) -> int:
    config = config_of(args)
    source = config.data_dir / "kubeconfig"
    try:
        text = source.read_text()
    except FileNotFoundError as error:
        raise CommandError(
            f"{source} does not exist yet: start the instance first (podyard up -d)",
            code=3,
        ) from error
    except PermissionError as error:
        raise CommandError(f"{source} may only be read by root") from error
    if args.path:
        print(source)
    elif args.merge is None:
        print(text, end="")
    else:
        from podyard.client.kubeconfig import (  # noqa: PLC0415 - keeps --help quick
            KubeconfigError,
            merge_kubeconfig,
        )

        target = Path(args.merge) if args.merge else _users_file(source)
        if _are_one(target, source):
            raise CommandError(f"{target} is this instance's own; name yours")
        try:
            merge_kubeconfig(source, target)
        except KubeconfigError as error:
            raise CommandError(str(error)) from error
        print(target)
    return 0


def _users_file(ours: Path) -> Path:
    """Return the user's own file, also where KUBECONFIG has been set to ours."""
    for part in os.environ.get("KUBECONFIG", "").split(":"):
        if part and not _are_one(Path(part), ours):
            return Path(part)
    return Path.home() / ".kube" / "config"


def _are_one(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


PART: Final = Command(
    name="kubeconfig",
    help="print the admin kubeconfig, or merge it into yours",
    arguments=_arguments,
    run=_run,
)
