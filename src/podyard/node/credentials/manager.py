"""Collects a Pod's registry credentials from every source, in order."""

from collections.abc import Sequence
from pathlib import Path

from podyard.api.core_v1 import Pod
from podyard.lib.parts import load_parts
from podyard.lib.values import dataclass
from podyard.node.credentials import sources as sources_package
from podyard.node.credentials.build import Candidate, build_candidates
from podyard.node.credentials.decide import (
    Credential,
    Keyring,
    Semantics,
    decide_credentials,
)
from podyard.node.credentials.parts import (
    CredentialProblem,
    CredentialSource,
    NodeFiles,
    SourceContext,
)


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Credentials for one image.

    Attributes:
        credentials: those to try, in order; empty means anonymously.
        problems: sources that gave nothing and should have.
        candidates: why each fits, or nearly does; for the records.
        unrelated: how many more are for other registries.
    """

    credentials: tuple[Credential, ...]
    problems: tuple[CredentialProblem, ...]
    candidates: tuple[Candidate, ...] = ()
    unrelated: int = 0


def find_node_files(
    *, root_dir: Path, working_dir: Path, home: Path | None, top: Path = Path("/")
) -> NodeFiles:
    """Return the eight places the page names, in its order.

    Args:
        root_dir: ``/var/lib/kubelet``, or wherever the node keeps its own.
        working_dir: where the program was started.
        home: the user's home; ``None`` where there is none.
        top: ``/``; tests look elsewhere.
    """
    docker = [home / ".docker"] if home else []
    directories = [root_dir, working_dir, *docker, top / ".docker"]
    legacy = [root_dir, working_dir, *([home] if home else []), top]
    return NodeFiles(
        tuple(directory / "config.json" for directory in directories),
        tuple(directory / ".dockercfg" for directory in legacy),
    )


def load_credential_sources() -> tuple[CredentialSource, ...]:
    """Return the sources that ship with us."""
    return load_parts(sources_package, CredentialSource)


class CredentialManager:
    """Finds the credentials of an image, anew for each pull.

    Args:
        context: what sources are made of.
        semantics: whose rule decides about globs.
        sources: the kinds of sources; ours by default.
    """

    def __init__(
        self,
        context: SourceContext,
        *,
        semantics: Semantics = "documented",
        sources: Sequence[CredentialSource] | None = None,
    ) -> None:
        kinds = load_credential_sources() if sources is None else sources
        ranked = sorted(kinds, key=lambda source: (source.rank, source.name))
        self._loaders = tuple(source.make(context) for source in ranked)
        self._semantics: Semantics = semantics

    async def look_up(self, pod: Pod, repository: str) -> LookedUp:
        """Return what to try for a Pod's image, from every source."""
        loaded = [await loader.load(pod, repository) for loader in self._loaders]
        keyrings = [Keyring(found.credentials) for found in loaded]
        chosen = decide_credentials(repository, keyrings, semantics=self._semantics)
        candidates, unrelated = build_candidates(
            (credential for found in loaded for credential in found.credentials),
            chosen,
            repository,
            semantics=self._semantics,
        )
        return LookedUp(
            chosen,
            tuple(problem for found in loaded for problem in found.problems),
            candidates,
            unrelated,
        )
