"""Where this machine's registry credentials come from, for agent and errands alike."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from podyard.api.core_v1 import Pod
from podyard.app.config import Config, ConfigError
from podyard.app.registries import credential_files
from podyard.node.credentials.parts import (
    AccountTokenError,
    AccountTokens,
    ObjectReader,
    ProviderPlugins,
    SourceContext,
)
from podyard.node.credentials.providers.decide import (
    Provider,
    ProviderConfigError,
    parse_providers,
)
from podyard.node.volumes.parts import SetUpError
from podyard.node.volumes.tokens import TokenManager

_FILE_SETTING: Final = "imageCredentialProviderConfigFile"
_DIR_SETTING: Final = "imageCredentialProviderBinDir"
_SUFFIXES: Final = (".json", ".yaml", ".yml")
#: How long a token for a plugin lives, seconds: what the API gives unasked.
_TOKEN_S: Final = 3600


class PodTokens(AccountTokens):
    """Tokens of Pods' ServiceAccounts, kept as those of volumes are."""

    def __init__(self, tokens: TokenManager) -> None:
        """Ask ``tokens``."""
        self._tokens = tokens

    async def get_token(self, pod: Pod, audience: str) -> str:
        """Return a token of the Pod's ServiceAccount for somebody."""
        try:
            issued = await self._tokens.get(
                pod, audience=audience, expiration_s=_TOKEN_S
            )
        except SetUpError as error:
            raise AccountTokenError(str(error)) from error
        return issued.text


def source_context(
    config: Config, objects: ObjectReader, *, tokens: AccountTokens | None = None
) -> SourceContext:
    """Return what credential sources are made of (blocking).

    Args:
        config: says where files and plugins are.
        objects: reads what Pods refer to.
        tokens: for plugins that want some.

    Raises:
        ConfigError: the plugins' configuration cannot be used.
    """
    return SourceContext(
        objects=objects,
        node_files=credential_files(config),
        plugins=load_plugins(config),
        tokens=tokens,
        environment=dict(os.environ),
    )


def load_plugins(config: Config) -> ProviderPlugins | None:
    """Return the credential provider plugins; ``None`` where there are none (blocking).

    Raises:
        ConfigError: they cannot be used.
    """
    file, bin_dir = config.credential_provider_config, config.credential_provider_dir
    if not file and not bin_dir:
        return None
    if not file or not bin_dir:
        raise ConfigError(f"{_FILE_SETTING} and {_DIR_SETTING} must be set together")
    if not Path(bin_dir).is_dir():
        raise ConfigError(f"plugin binary directory {bin_dir} did not exist")
    try:
        providers = parse_providers(list(_read(Path(file))))
    except ProviderConfigError as error:
        raise ConfigError(
            f"failed to validate credential provider config: {error}"
        ) from error
    for provider in providers:
        _check_program(Path(bin_dir), provider)
    return ProviderPlugins(providers, Path(bin_dir).absolute())


def token_audiences(config: Config) -> frozenset[str]:
    """Return for whom this node's plugins want ServiceAccount tokens (blocking).

    Raises:
        ConfigError: the plugins' configuration cannot be used.
    """
    plugins = load_plugins(config)
    providers = plugins.providers if plugins else ()
    return frozenset(one.token.audience for one in providers if one.token)


def _check_program(directory: Path, provider: Provider) -> None:
    if not os.access(directory / provider.name, os.X_OK):
        raise ConfigError(
            f"plugin binary executable {directory / provider.name} of provider "
            f'"{provider.name}" did not exist or cannot be run'
        )


def _read(file: Path) -> Iterator[tuple[str, object]]:
    files = [file]
    if file.is_dir():
        files = sorted(one for one in file.iterdir() if one.suffix in _SUFFIXES)
        if not files:
            raise ConfigError(f'no configuration files found in directory "{file}"')
    for one in files:
        try:
            yield str(one), yaml.safe_load(one.read_text())
        except OSError as error:
            raise ConfigError(f"{one}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            # The parser's words may quote the file, and so an env value.
            raise ConfigError(f"{one}: is not valid YAML or JSON") from error
