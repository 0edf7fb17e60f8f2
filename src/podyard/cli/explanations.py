"""What ``podyard explain``, ``hooks`` and ``runtime`` do."""

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from podyard.api.documents import Document
from podyard.api.errors import ApiError
from podyard.api.quantity import QuantityError
from podyard.app.admin import AdminError
from podyard.app.explain import (
    explanation_of,
    handlers_of,
    hook_logs_of,
    schedule_of,
)
from podyard.cli.build import build_json, build_table
from podyard.cli.explain_text import (
    HOOK_HEADER,
    env_lines,
    hook_rows,
    pod_lines,
    pull_lines,
    schedule_lines,
    stop_lines,
)
from podyard.cli.parts import CommandError, UsageError
from podyard.cli.settings import config_of

_T = TypeVar("_T")

_PARTS: Final = {"pull": "pulls", "env": "environment", "stop": "stops", "pod": ""}
_NOT_RUNNING: Final = 3


def _ask(work: Coroutine[Any, Any, _T]) -> _T:
    """Run an errand; turn its failures into a sentence."""
    try:
        return asyncio.run(work)
    except AdminError as error:
        raise CommandError(str(error), code=_NOT_RUNNING) from error
    except ApiError as error:
        raise CommandError(error.message) from error
    except QuantityError as error:
        raise CommandError(str(error)) from error


def _print(lines: Iterable[str]) -> int:
    print("\n".join(lines))
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Explain one thing about a Pod."""
    config = config_of(args)
    if args.action == "schedule":
        found = _ask(schedule_of(config, args.namespace, args.pod))
    else:
        found = _ask(
            explanation_of(
                config,
                args.namespace,
                args.pod,
                part=_PARTS[args.action],
                secrets=getattr(args, "show_secrets", False),
            )
        )
    if args.output == "json":
        print(build_json(found))
        return 0
    return _print(_lines(args, found))


def _lines(args: argparse.Namespace, found: Document) -> Iterable[str]:
    match args.action:
        case "pull":
            return pull_lines(found)
        case "env":
            return env_lines(found, container=args.container)
        case "schedule":
            return schedule_lines(found)
        case "stop":
            return stop_lines(found)
        case _:
            return pod_lines(found)


def run_hooks(args: argparse.Namespace) -> int:
    """List deliveries of hooks, or print what they have put out."""
    config = config_of(args)
    if args.logs:
        if args.output == "json":
            raise UsageError("--logs prints logs as they are, not as JSON")
        logs = _ask(
            hook_logs_of(config, args.namespace, args.pod, container=args.container)
        )
        for name, text in logs:
            if len(logs) > 1:
                sys.stdout.write(f"==> {name}\n")
            sys.stdout.flush()
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        return 0
    found = _ask(explanation_of(config, args.namespace, args.pod, part="hooks"))
    hooks = [
        one
        for one in found.get("hooks") or ()
        if args.container in {"", one.get("container")}
    ]
    if args.output == "json":
        print(build_json(hooks))
    elif hooks:
        print(build_table(HOOK_HEADER, list(hook_rows(hooks))))
    else:
        print("no hooks were delivered")
    return 0


def run_runtime(args: argparse.Namespace) -> int:
    """List handlers, or print them as another runtime's settings."""
    if args.action == "config":
        return _print_settings(args)
    found = _ask(handlers_of(config_of(args)))
    if args.output == "json":
        print(build_json(found))
        return 0
    header = ("HANDLER", "RUNTIME", "FEATURES", "RUNTIME CLASSES")
    print(build_table(header, [_handler_row(one) for one in found]))
    return 0


def _print_settings(args: argparse.Namespace) -> int:
    # Only this needs the rooms of the runtime, which take their time to import.
    from podyard.containerd.snippets import (  # noqa: PLC0415
        containerd_snippet,
        crio_snippet,
    )

    handlers = config_of(args).runtimes
    if not handlers:
        raise CommandError(
            "runtimes: of the config names no handler; give it with --config FILE"
        )
    snippet = containerd_snippet if args.target == "containerd" else crio_snippet
    sys.stdout.write(snippet(handlers))
    return 0


def _handler_row(handler: Document) -> tuple[str, ...]:
    answers = handler["nodes"]
    different = set(answers.values())
    if len(different) == 1:
        runtime = different.pop()
    else:
        runtime = ", ".join(f"{node} {answer}" for node, answer in answers.items())
    return (
        handler["handler"] or "(default)",
        runtime or "unknown",
        ", ".join(handler["features"]) or "-",
        ", ".join(handler["runtimeClasses"]) or "-",
    )
