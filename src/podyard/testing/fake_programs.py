"""What a container of the fake runtime does: a few commands of a shell, as data."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from podyard.lib.values import dataclass

#: Exit code of a process that SIGKILL ended, and of one that SIGTERM ended.
KILLED = 137
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Program:
    """One process.

    Attributes:
        runs_s: seconds until it exits by itself; ``None`` for never.
        exit_code: of that exit.
        on_term: exit code upon SIGTERM; ``None`` ignores the signal, as the first
            process of a PID namespace does unless it asked for it.
        stdout: lines it prints when it starts.
        writes: path → text it writes when it starts.
    """

    runs_s: float | None = 0.0
    exit_code: int = 0
    on_term: int | None = None
    stdout: tuple[str, ...] = ()
    writes: tuple[tuple[str, str], ...] = ()


def parse_program(command: Sequence[str]) -> Program:
    """Return what a command line does; one that is not known runs for ever.

    Known are ``true``, ``false``, ``sleep N``, ``echo …``, ``exit N``, and ``sh -c``
    with those, ``trap '…' TERM`` and ``echo … > FILE``, separated by ``;``.
    """
    words = list(command)
    if len(words) >= 3 and words[0].rpartition("/")[2] == "sh" and words[1] == "-c":
        return _parse_script(words[2])
    return _run(Program(), words)[0] if words else Program(runs_s=None)


def _parse_script(script: str) -> Program:
    program = Program()
    text = script.replace("&&", ";").replace("& wait", ";").replace("\n", ";")
    for statement in _statements(text):
        program, over = _run(program, shlex.split(statement))
        if over:
            break
    return program


def _statements(text: str) -> list[str]:
    """Split at semicolons outside quotes."""
    found, quote, current = [], "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == ";":
            found.append(current)
            current = ""
            continue
        current += letter
    return [part.strip() for part in (*found, current) if part.strip()]


def _run(program: Program, words: list[str]) -> tuple[Program, bool]:
    """Return the program after one more command, and whether it ends there."""
    name = words[0].rpartition("/")[2]
    match [name, *words[1:]]:
        case ["true"]:
            return replace(program, exit_code=0), False
        case ["false"]:
            return replace(program, exit_code=1), False
        case ["exit", *code]:
            return replace(program, exit_code=int(code[0]) if code else 0), True
        case ["sleep", span]:
            if span in {"inf", "infinity"}:
                return replace(program, runs_s=None), True
            seconds = float(span)
            runs_s = None if program.runs_s is None else program.runs_s + seconds
            return replace(program, runs_s=runs_s, exit_code=0), False
        case ["trap", action, "TERM"]:
            return replace(program, on_term=_trap(action)), False
        case ["echo", *rest] if len(rest) >= 2 and rest[-2] == ">":
            written = (rest[-1], " ".join(rest[:-2]) + "\n")
            return replace(program, writes=(*program.writes, written)), False
        case ["echo", *rest]:
            return replace(program, stdout=(*program.stdout, " ".join(rest))), False
        case _:
            return replace(program, runs_s=None), True


def _trap(action: str) -> int | None:
    words = action.split()
    return int(words[1]) if words[:1] == ["exit"] and len(words) > 1 else None
