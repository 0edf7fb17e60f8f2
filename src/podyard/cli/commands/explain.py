"""``podyard explain``: what was decided for a Pod, and why."""

import argparse
from typing import Final

from podyard.cli.parts import Command, CommandError
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
    text = "what a reason in a status, condition or event means, and what to do"
    reason = actions.add_parser("reason", help=text, description=text)
    reason.add_argument("reason", metavar="REASON")


def _run(args: argparse.Namespace) -> int:
    if args.action == "reason":
        return _explain_reason(args.reason)
    from podyard.cli.explanations import run_explain  # noqa: PLC0415 - quick --help

    return run_explain(args)


def _explain_reason(name: str) -> int:
    from podyard.api.reasons import find_reasons, near_reasons  # noqa: PLC0415

    found = find_reasons(name)
    if not found:
        near = near_reasons(name)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CommandError(f'no reason of Podyard is called "{name}"{hint}')
    for reason in found:
        print(f"{reason.name} ({', '.join(reason.places)})")
        print(f"  {reason.means}")
        if reason.advice:
            print(f"  {reason.advice}")
    return 0


PART: Final = Command(
    name="explain",
    help="why a Pod is as it is: pull, env, schedule, stop, pod, reason",
    arguments=_arguments,
    run=_run,
)
