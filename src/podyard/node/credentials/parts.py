"""What the credential room hands to others, and what makes a credential source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.node.credentials.decide import Credential


@dataclass(frozen=True, slots=True)
class CredentialProblem:
    """A source that gave nothing, told as an event.

    Attributes:
        reason: the event reason.
        message: the event message, never with a secret value.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LoadedCredentials:
    """What a source has for a Pod, in the order it was found."""

    credentials: tuple[Credential, ...] = ()
    problems: tuple[CredentialProblem, ...] = ()


class ObjectReader(Protocol):
    """Reads what Pods refer to (``client/referenced``)."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object, or ``None`` where it does not exist.

        Raises:
            ReferencedObjectError: it could not be read.
        """


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where the node's own credential files are looked for; the first valid counts.

    Attributes:
        config_json: paths of ``config.json`` files.
        dockercfg: paths of ``.dockercfg`` files, after all of the former.
    """

    config_json: tuple[Path, ...] = ()
    dockercfg: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources are made of."""

    objects: ObjectReader
    node_files: NodeFiles


class CredentialLoader(Protocol):
    """Loads credentials, anew each time they are needed."""

    async def load(self, pod: Pod, repository: str) -> LoadedCredentials:
        """Return what may serve a Pod's image; never raises for a bad source.

        Args:
            pod: the Pod.
            repository: the image's canonical repository.
        """


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """A kind of source.

    Attributes:
        name: for logs.
        rank: sources of a lower rank are tried first.
        make: makes its loader.
    """

    name: str
    rank: int
    make: Callable[[SourceContext], CredentialLoader]
