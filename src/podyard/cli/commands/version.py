"""``podyard version``."""

import argparse
import platform
from typing import Final

import podyard
from podyard.cli.build import build_json
from podyard.cli.parts import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def _run(args: argparse.Namespace) -> int:
    facts = {
        "podyard": podyard.__version__,
        "kubernetes": podyard.KUBERNETES_VERSION,
        "python": platform.python_version(),
    }
    if args.output == "json":
        print(build_json(facts))
    else:
        print(
            f"podyard {facts['podyard']} (Kubernetes {facts['kubernetes']}, "
            f"Python {facts['python']})"
        )
    return 0


PART: Final = Command(
    name="version", help="print the versions", arguments=_arguments, run=_run
)
