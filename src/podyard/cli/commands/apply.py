"""``podyard apply``: objects from files, without kubectl."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from podyard.cli.parts import Command, CommandError, UsageError
from podyard.cli.settings import config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="a YAML or JSON file, a directory of such, or - for standard input",
    )
    parser.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE")
    parser.add_argument(
        "--wait",
        default=None,
        metavar="SPAN",
        help="wait until the Pods among them are Ready (or have succeeded)",
    )


def _run(args: argparse.Namespace) -> int:
    from podyard.api.errors import ApiError  # noqa: PLC0415 - keeps --help quick
    from podyard.app.admin import AdminError, apply, read_manifests  # noqa: PLC0415
    from podyard.lib.durations import parse_duration  # noqa: PLC0415

    config = config_of(args)
    try:
        wait_s = None if args.wait is None else parse_duration(args.wait)
    except ValueError as error:
        raise UsageError(f"--wait: {error}") from error
    try:
        documents = []
        for name in args.filename:
            if name == "-":
                documents += read_manifests(sys.stdin.read(), "standard input")
                continue
            documents += [
                document
                for file in _files(Path(name))
                for document in read_manifests(file.read_text(), str(file))
            ]
        asyncio.run(
            apply(
                config,
                documents,
                namespace=args.namespace,
                wait_s=wait_s,
                say=lambda text: print(text, flush=True),
            )
        )
    except ApiError as error:
        raise CommandError(error.message) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"what was read is not UTF-8 text: {error}") from error
    except AdminError as error:
        raise CommandError(str(error)) from error
    return 0


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            file for file in path.iterdir() if file.suffix in {".yaml", ".yml", ".json"}
        )
    return [path]


PART: Final = Command(
    name="apply",
    help="create objects, or merge files into those that exist",
    arguments=_arguments,
    run=_run,
)
