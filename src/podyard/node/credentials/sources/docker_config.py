"""The node's own credential files, for every Pod on it; read anew when they change.

Source: https://kubernetes.io/docs/concepts/containers/images/#configuring-nodes-to-authenticate-to-a-private-registry
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.runtime import ImageAuth
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import (
    Credential,
    CredentialParseError,
    ParsedConfig,
    decide_helper,
    parse_config_json,
    parse_dockercfg,
)
from podyard.node.credentials.parts import (
    CredentialProblem,
    CredentialSource,
    LoadedCredentials,
    SourceContext,
)
from podyard.node.credentials.providers.helpers import CredentialHelpers, HelperError

log = structlog.get_logger()

#: The reason of the event that tells of a helper that failed.
HELPER_FAILED: Final = "CredentialHelperFailed"
_Parse: TypeAlias = Callable[[bytes], ParsedConfig]
#: What tells one state of a file from another: inode, size, time of change.
_Identity: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Read:
    identity: _Identity
    config: ParsedConfig | None


class DockerConfig:
    """The first valid file counts; files are not merged."""

    def __init__(self, context: SourceContext) -> None:
        files = context.node_files
        self._files: tuple[tuple[Path, _Parse], ...] = (
            *((path, parse_config_json) for path in files.config_json),
            *((path, parse_dockercfg) for path in files.dockercfg),
        )
        self._read: dict[Path, _Read] = {}
        self._told = ""
        self._helpers = CredentialHelpers(context.environment)

    async def load(self, pod: Pod, repository: str) -> LoadedCredentials:  # noqa: ARG002
        """Return what the first valid file holds."""
        path, config = await asyncio.to_thread(self._find)
        if path is None or config is None:
            return LoadedCredentials()
        if self._told != str(path):
            self._told = str(path)
            log.info(
                "node_credentials_found",
                file=str(path),
                entries=len(config.entries),
                helpers=config.helpers,
            )
        origin = f'node file "{path}"'
        credentials = [Credential(auth, key, origin) for key, auth in config.entries]
        asked = decide_helper(config, repository)
        if asked is None:
            return LoadedCredentials(tuple(credentials))
        name, key = asked
        # Docker leaves an empty entry where a helper has the credentials.
        credentials = [one for one in credentials if one.auth != ImageAuth()]
        try:
            auth = await self._helpers.get(name, key)
        except HelperError as error:
            text = f"The credential helper named in {path} gave nothing: {error}"
            problem = CredentialProblem(HELPER_FAILED, text)
            # A store need not know every registry; a helper of its own should.
            quiet = (
                name == config.store
                and not credentials
                and not any(key == entry for entry, _ in config.entries)
            )
            return LoadedCredentials(tuple(credentials), () if quiet else (problem,))
        helped = Credential(auth, key, f'{origin}, helper "{name}"')
        return LoadedCredentials((helped, *credentials))

    def _find(self) -> tuple[Path | None, ParsedConfig | None]:
        for path, parse in self._files:
            config = self._read_file(path, parse)
            if config is not None:
                return path, config
        return None, None

    def _read_file(self, path: Path, parse: _Parse) -> ParsedConfig | None:
        try:
            info = path.stat()
            identity = (info.st_ino, info.st_size, info.st_mtime_ns)
            known = self._read.get(path)
            if known is not None and known.identity == identity:
                return known.config
            raw = path.read_bytes()
        except OSError:
            return None
        try:
            config: ParsedConfig | None = parse(raw)
        except CredentialParseError as error:
            log.warning("node_credentials_skipped", file=str(path), error=str(error))
            config = None
        self._read[path] = _Read(identity, config)
        return config


PART: Final = CredentialSource(name="docker-config", rank=1, make=DockerConfig)
