"""``podyard status``."""

import argparse
from typing import Final

from podyard.cli.build import build_json, build_table
from podyard.cli.control import ask
from podyard.cli.parts import Command
from podyard.cli.settings import config_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _run(args: argparse.Namespace) -> int:
    config = config_of(args)
    status = ask(config.name, "GET", "/status")
    if args.output == "json":
        print(build_json(status))
        return 0
    print(build_table(("WHAT", "IS"), [(k, str(v)) for k, v in _rows(status)]))
    pods = status.get("pods") or []
    if pods:
        print()
        header = ("NAMESPACE", "POD", "STATUS", "READY", "RESTARTS", "IP")
        print(build_table(header, [tuple(str(pod[h]) for h in _POD) for pod in pods]))
        for pod in pods:
            if pod.get("pulling"):
                print(f"{pod['namespace']}/{pod['name']}: {pod['pulling']}")
    return 0


_POD = ("namespace", "name", "status", "ready", "restarts", "ip")


def _rows(status: dict[str, object]) -> list[tuple[str, object]]:
    return [(key, value) for key, value in status.items() if key != "pods"]


PART: Final = Command(
    name="status",
    help="what runs, where it listens, and the Pods (exit code 3: not running)",
    arguments=_arguments,
    run=_run,
)
