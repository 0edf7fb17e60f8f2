"""What the credential room hands to others, and what makes a credential source."""

from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Protocol

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.scheme import Kind
from podyard.lib.clock import Clock, SystemClock
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import Credential
from podyard.node.credentials.providers.decide import Provider


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


class AccountTokenError(Exception):
    """No token could be had for a Pod's ServiceAccount; the message says why."""


class AccountTokens(Protocol):
    """Tokens of ServiceAccounts, bound to a Pod."""

    async def get_token(self, pod: Pod, audience: str) -> str:
        """Return a token of the Pod's ServiceAccount for somebody.

        Raises:
            AccountTokenError: there is none.
        """


@dataclass(frozen=True, slots=True)
class ProviderPlugins:
    """The kubelet's credential provider plugins of this node.

    Attributes:
        providers: in the order of the configuration.
        bin_dir: where their programs are.
    """

    providers: tuple[Provider, ...]
    bin_dir: Path


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources are made of.

    Attributes:
        objects: reads what Pods refer to.
        node_files: where the node's own files are.
        plugins: credential provider plugins; ``None`` for none.
        tokens: for plugins that want some; ``None`` where there are none.
        environment: of the programs that are run.
        clock: tells how old a kept answer is.
    """

    objects: ObjectReader
    node_files: NodeFiles
    plugins: ProviderPlugins | None = None
    tokens: AccountTokens | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    clock: Clock = field(default_factory=SystemClock)


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
