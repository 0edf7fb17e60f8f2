"""Where each variable of a container comes from, and what it overrode. Pure.

It goes the way of ``build_environment`` and keeps notes: a value is known to be secret
by where it came from, also where another variable took it in with ``$(NAME)``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final

from podyard.api.core_v1 import Container, Pod
from podyard.api.documents import Document
from podyard.lib.values import dataclass
from podyard.node.environment.build import (
    EnvironmentSources,
    build_service_environment,
    find_references,
    read_env_from,
    read_variable,
)
from podyard.node.environment.parts import EnvironmentBuildError

#: Stands for the content of a file that a container wrote: nobody can say whether it
#: is secret, so it is never shown.
FILE: Final = "a file"
#: Stands for whatever a running container was started with.
RUNNING: Final = "the running container"
#: Variables that runtimes add themselves.
_OF_RUNTIME: Final = frozenset({"HOSTNAME", "TERM", "PATH", "HOME"})


@dataclass(frozen=True, slots=True)
class Origin:
    """One variable.

    Attributes:
        name: its name.
        value: its value; hidden from repr.
        source: where it comes from: ``{"kind": "secretKeyRef", "name": …}``.
        uses: the variables it takes in with ``$(NAME)``.
        secrets: the Secrets its value holds something of; ``FILE`` for a file.
        overrode: the sources of the same name that it replaced, nearest first.
        error: why it cannot be had; then there is no value.
    """

    name: str
    value: str = field(repr=False)
    source: Document
    uses: tuple[str, ...] = ()
    secrets: frozenset[str] = frozenset()
    overrode: tuple[Document, ...] = ()
    error: str = ""

    def to_document(self, shown: frozenset[str]) -> Document:
        """Return it for people; secret values only where their Secrets are shown.

        Args:
            shown: names of Secrets whose values the reader may see.
        """
        document: Document = {"name": self.name, "source": self.source}
        hidden = sorted(self.secrets - shown)
        if self.error:
            document["error"] = self.error
        elif hidden:
            document["hidden"] = hidden
        else:
            document["value"] = self.value.encode("utf-8", "surrogateescape").decode(
                "utf-8", "backslashreplace"
            )
        if self.uses:
            document["uses"] = list(self.uses)
        if self.overrode:
            document["overrode"] = list(self.overrode)
        return document


def describe_environment(
    container: Container,
    origins: Iterable[Origin],
    running: Iterable[str],
    shown: frozenset[str],
) -> list[Document]:
    """Return the variables for people, beside those of the running container.

    What the running container has may come from a Secret as it was once, under a name
    that says nothing of it now. So its values are shown only where the container
    refers to no Secret that the reader may not see, and to no file.

    Args:
        container: the container.
        origins: its variables as they would be built now.
        running: those it was started with, ``NAME=value``; none where it does not run
            or nobody knows.
        shown: names of Secrets whose values the reader may see.
    """
    references = find_references(container)
    is_open = shown.issuperset(references.secrets) and not references.files
    started: dict[str, str] = {}
    for text in running:
        name, _, value = text.partition("=")
        started[name] = value
    described: list[Document] = []
    for origin in origins:
        document = origin.to_document(shown)
        if started and not origin.error:
            document |= _compare(origin, started, is_open=is_open)
        described.append(document)
        started.pop(origin.name, None)
    for name, value in started.items():
        kind = "runtime" if name in _OF_RUNTIME else "gone"
        told: Document = {"value": value} if is_open else {"hidden": [RUNNING]}
        described.append({"name": name, "source": {"kind": kind}} | told)
    return described


def _compare(origin: Origin, started: Mapping[str, str], *, is_open: bool) -> Document:
    if origin.name not in started:
        return {"running": "absent"}
    value = started[origin.name]
    if value == origin.value or not origin.value.isprintable():
        return {}  # what is no text does not survive the runtime's JSON
    return {"running": "other"} | ({"runningValue": value} if is_open else {})


def explain_environment(
    pod: Pod,
    container: Container,
    sources: EnvironmentSources,
    *,
    image: Iterable[str] = (),
) -> tuple[Origin, ...]:
    """Return every variable in the order it is given to the runtime, then the image's.

    Args:
        pod: the Pod.
        container: the container.
        sources: everything variables are made of.
        image: the image's own variables, ``NAME=value``; the weakest source.
    """
    services = _service_origins(pod, sources)
    own: dict[str, Origin] = {}
    for entry in container.env_from:
        for origin in _of_env_from(pod, entry, sources):
            known = own.get(origin.name)
            own[origin.name] = _over(origin, known) if known else origin
    for variable in container.env:
        found = _of_variable(pod, container, variable, (own, services), sources)
        if found is not None:
            known = own.pop(found.name, None)
            own[found.name] = _over(found, known) if known else found
    for name, origin in services.items():
        own[name] = _over(own[name], origin) if name in own else origin
    for text in image:
        name, _, value = text.partition("=")
        origin = Origin(name, value, {"kind": "image"})
        own[name] = _over(own[name], origin) if name in own else origin
    return tuple(own.values())


def _over(winner: Origin, loser: Origin) -> Origin:
    return Origin(
        winner.name,
        winner.value,
        winner.source,
        winner.uses,
        winner.secrets,
        (*winner.overrode, loser.source, *loser.overrode),
        winner.error,
    )


def _service_origins(pod: Pod, sources: EnvironmentSources) -> dict[str, Origin]:
    services = tuple(sources.services or ())
    everything = build_service_environment(pod, services)
    found: dict[str, Origin] = {}
    for service in services:
        name = str((service.get("metadata") or {}).get("name") or "")
        for key, value in build_service_environment(pod, (service,)).items():
            if everything.get(key) == value:
                found.setdefault(
                    key, Origin(key, value, {"kind": "service", "name": name})
                )
    return {name: found[name] for name in everything if name in found}


def _of_env_from(
    pod: Pod, entry: Document, sources: EnvironmentSources
) -> Iterator[Origin]:
    prefix = str(entry.get("prefix") or "")
    kind = "configMapRef" if entry.get("configMapRef") is not None else "secretRef"
    name = str((entry.get(kind) or {}).get("name") or "")
    source: Document = {"kind": kind, "name": name}
    if prefix:
        source["prefix"] = prefix
    secrets = frozenset({name}) if kind == "secretRef" else frozenset[str]()
    try:
        pairs = read_env_from(pod, entry, sources)
    except EnvironmentBuildError as error:
        yield Origin(f"{prefix}*", "", source, error=error.message)
        return
    for key, value in pairs.items():
        keyed = source | {"key": key.removeprefix(prefix)}
        yield Origin(key, value, keyed, secrets=secrets)


class _Noting(Mapping[str, str]):
    """What ``$(NAME)`` may stand for; notes what was taken in."""

    def __init__(self, *layers: Mapping[str, Origin]) -> None:
        self._layers = layers
        self.used: dict[str, Origin] = {}

    def __getitem__(self, name: str) -> str:
        for layer in self._layers:
            origin = layer.get(name)
            if origin is not None and not origin.error:
                self.used[name] = origin
                return origin.value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({name for layer in self._layers for name in layer})

    def __len__(self) -> int:
        return len(list(iter(self)))


def _of_variable(
    pod: Pod,
    container: Container,
    variable: Document,
    layers: tuple[Mapping[str, Origin], Mapping[str, Origin]],
    sources: EnvironmentSources,
) -> Origin | None:
    """Return a declared variable; ``None`` where it is left out (``optional``)."""
    name = str(variable.get("name") or "")
    source, secrets = _describe(variable)
    known = _Noting(*layers)
    try:
        value = read_variable(pod, container, variable, known, sources)
    except EnvironmentBuildError as error:
        return Origin(name, "", source, error=error.message)
    if value is None:
        return None
    for used in known.used.values():
        secrets |= used.secrets
    return Origin(name, value, source, tuple(known.used), secrets)


def _describe(variable: Document) -> tuple[Document, frozenset[str]]:
    """Return where a variable says it comes from, and the Secrets in that."""
    value_from = variable.get("valueFrom") or {}
    if variable.get("value") or not value_from:
        return {"kind": "value"}, frozenset()
    for kind in ("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"):
        selector = value_from.get(kind)
        if selector is not None:
            secret = {str(selector.get("name"))} if kind == "secretKeyRef" else set()
            return {"kind": kind} | _plain(selector), frozenset(secret)
    selector = value_from.get("fileKeyRef") or {}
    return {"kind": "fileKeyRef"} | _plain(selector), frozenset({FILE})


def _plain(selector: Document) -> Document:
    return {
        key: str(selector[key])
        for key in (
            "name",
            "key",
            "fieldPath",
            "containerName",
            "resource",
            "divisor",
            "volumeName",
            "path",
        )
        if selector.get(key)
    }
