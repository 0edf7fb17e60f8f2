"""Every reason that is given stands in the table people can read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import podyard
from podyard.api.reasons import all_reasons, find_reasons

SOURCE = Path(podyard.__file__).parent
#: The houses that tell people something, and what they share.
ROOMS = ("node", "scheduler", "controllers", "server/verbs/eviction.py")
CAMEL = re.compile(r"[A-Z][a-z]+([A-Z]\w*)*")
#: Takes an event; the first word in camel case that is no type is its reason.
TELLS = re.compile(r"record|(node_)?event|_event|_?warn|_tell(_error)?|_note")
#: Words in such places that are none: types of events, what pulls are noted as, and
#: the reason of the API's own errors.
NO_REASONS = {"Normal", "Warning", "Present", "DisruptionBudget"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCE.rglob("*.py"):
        if path.name != "reasons.py":
            yield path, ast.parse(path.read_text())


def words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def given(tree: ast.Module) -> Iterator[str]:
    """Iterate over the reasons a module gives, as far as they stand there."""
    known = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], ast.Constant(str(value))) | ast.AnnAssign(
                ast.Name(name), _, ast.Constant(str(value))
            ):
                known[name] = value

    def values(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Constant(str(value)):
                yield value
            case ast.Name(name) if name in known:
                yield known[name]
            case ast.IfExp(_, body, orelse):
                yield from values(body)
                yield from values(orelse)

    for node in ast.walk(tree):
        match node:
            case ast.keyword("reason", value):
                yield from values(value)
            case ast.Dict(keys, found):
                for key, value in zip(keys, found, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "reason":
                        yield from values(value)
            case ast.Call(ast.Attribute(attr=name) | ast.Name(name), arguments):
                if TELLS.fullmatch(name):
                    for argument in arguments:
                        yield from values(argument)
    yield from (value for name, value in known.items() if name.endswith("REASON"))


def test_every_reason_in_the_table_is_given_somewhere() -> None:
    said = {word for _, tree in trees() for word in words(tree)}

    idle = [
        reason.name
        for reason in all_reasons()
        if not reason.is_the_runtimes
        and not any(
            word.startswith(reason.name[:-1])
            if reason.name.endswith("*")
            else word == reason.name
            for word in said
        )
    ]

    assert idle == []


def test_every_reason_that_is_given_stands_in_the_table() -> None:
    missing = {
        (str(path.relative_to(SOURCE)), word)
        for path, tree in trees()
        if str(path.relative_to(SOURCE)).startswith(ROOMS)
        for word in given(tree)
        if CAMEL.fullmatch(word) and word not in NO_REASONS and not find_reasons(word)
    }

    assert missing == set()


def test_no_reason_stands_twice() -> None:
    names = [reason.name for reason in all_reasons()]

    assert len(names) == len(set(names))
