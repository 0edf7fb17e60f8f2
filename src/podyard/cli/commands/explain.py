"""``podyard explain``: what was decided for a Pod, and why."""

import argparse
from typing import Final

from podyard.cli.parts import Command
from podyard.cli.settings import add_places

_ACTIONS: Final = {
    "pull": "each pull: the rule of the policy, credentials tried, answers, next retry",
    "env": "each variable: where it comes from and what it overrode",
    "schedule": "constraints of the Pod and of its RuntimeClass, what each node lacks",
    "stop": "how each container was ended, as a timeline; also of a Pod that is gone",
    "pod": "all of it in short, and the last looks of the node at the Pod",
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("pod", metavar="POD")
        action.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE")
        action.add_argument("-o", "--output", choices=("text", "json"), default="text")
        if name == "env":
            action.add_argument(
                "-c", "--container", default="", metavar="CONTAINER", help="only this"
            )
            action.add_argument(
                "--show-secrets",
                action="store_true",
                help="show values from Secrets too, of those you may get",
            )
        add_places(action)


def _run(args: argparse.Namespace) -> int:
    from podyard.cli.explanations import run_explain  # noqa: PLC0415 - quick --help

    return run_explain(args)


PART: Final = Command(
    name="explain",
    help="why a Pod is as it is: pull, env, schedule, stop, pod",
    arguments=_arguments,
    run=_run,
)
