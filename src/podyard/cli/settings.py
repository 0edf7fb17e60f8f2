"""Config flags on a parser, and the config they make."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import orjson

from podyard.app.config import (
    SETTINGS,
    Config,
    ConfigError,
    default_data_dir,
    load_config,
)
from podyard.cli.parts import UsageError

_COMMON = {"name", "data-dir"}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and a flag for each setting."""
    parser.add_argument(
        "--config", default=None, metavar="FILE", help="a YAML file of settings"
    )
    for setting in SETTINGS:
        if setting.flag and setting.key not in _COMMON:
            parser.add_argument(
                f"--{setting.key}",
                default=None,
                metavar=setting.metavar,
                help=setting.help,
            )


def add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    """Add an action below a command; ``text`` is its help everywhere."""
    return actions.add_parser(name, help=text, description=text)


def add_places(parser: argparse.ArgumentParser, *, runtime: bool = False) -> None:
    """Add the settings that say where to look, for an action below a command.

    They may stand before the action too, and then must not be undone by a default.
    """
    absent = argparse.SUPPRESS
    parser.add_argument("--name", default=absent, metavar="NAME", help="which instance")
    parser.add_argument(
        "--data-dir", default=absent, metavar="DIR", help="where its data is"
    )
    parser.add_argument(
        "--config", default=absent, metavar="FILE", help="a YAML file of settings"
    )
    parser.add_argument(
        "--root-dir",
        default=absent,
        metavar="DIR",
        help="where node credentials (config.json) are (default: /var/lib/kubelet)",
    )
    if runtime:
        parser.add_argument(
            "--runtime-endpoint",
            default=absent,
            metavar="URL",
            help="a CRI socket (unix:///…) instead of the instance's containerd",
        )


def config_of(args: argparse.Namespace) -> Config:
    """Return the config of parsed arguments.

    Raises:
        UsageError: a setting is wrong.
    """
    flags = {
        setting.key: getattr(args, setting.key.replace("-", "_"), None)
        for setting in SETTINGS
        if setting.flag
    }
    file = getattr(args, "config", None)
    try:
        config = load_config(flags, os.environ, Path(file) if file else None)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if config.data_dir == default_data_dir(config.name):
        return replace(config, data_dir=_known_data_dir(config))
    return config


def _known_data_dir(config: Config) -> Path:
    """Return where a running instance said its data is, so it need not be repeated."""
    row = Path("/run/podyard/instances") / f"{config.name}.json"
    try:
        return Path(orjson.loads(row.read_bytes())["data_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return config.data_dir


def errand_config_of(args: argparse.Namespace) -> Config:
    """Return the config for a short command: its log is not what a person came for.

    Only errors are logged, on stderr; with ``--log-level debug`` everything is.

    Raises:
        UsageError: a setting is wrong.
    """
    from podyard.app.logs import set_up_logging  # noqa: PLC0415 - keeps --help quick

    config = config_of(args)
    set_up_logging("debug" if config.log_level == "debug" else "error", None)
    return config
