"""``podyard doctor``."""

import argparse
from typing import Final

from podyard.cli.build import build_json, build_table
from podyard.cli.parts import Command
from podyard.cli.settings import add_settings, config_of

_MARK = {"ok": "ok", "warn": "warning", "missing": "MISSING"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")


def _run(args: argparse.Namespace) -> int:
    from podyard.app.host import examine  # noqa: PLC0415 - keeps --help quick

    config = config_of(args)
    facts = examine(
        data_dir=config.data_dir, private_runtime=not config.runtime_endpoint
    )
    if args.output == "json":
        print(
            build_json(
                [
                    {
                        "name": fact.name,
                        "value": fact.value,
                        "verdict": str(fact.verdict),
                        "advice": fact.advice,
                    }
                    for fact in facts
                ]
            )
        )
    else:
        rows = [
            (fact.name, _MARK[str(fact.verdict)], fact.value, fact.advice)
            for fact in facts
        ]
        print(build_table(("FACT", "VERDICT", "VALUE", "WHAT TO DO"), rows))
    return 4 if any(str(fact.verdict) == "missing" for fact in facts) else 0


PART: Final = Command(
    name="doctor",
    help="look at this host and say what Podyard would miss (exit code 4)",
    arguments=_arguments,
    run=_run,
)
