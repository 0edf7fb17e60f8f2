"""One nftables table of ours: loaded whole once, then changed where it differs."""

import asyncio
import subprocess
from typing import Final

import structlog

from podyard.network.table import Table, change_table, replace_table

log = structlog.get_logger()

_NFT_TIMEOUT_S: Final = 30


class NftablesError(Exception):
    """nft refused; the message ends with its own words."""


class Nftables:
    """The owner of one table."""

    def __init__(self, table: str, *, binary: str = "nft") -> None:
        """Own ``table`` of family inet; nothing is made yet.

        Args:
            table: its name.
            binary: the nft program.
        """
        self._table = table
        self._binary = binary
        self._loaded: Table | None = None

    async def apply(self, table: Table) -> bool:
        """Load a table in one transaction; tell whether it was needed.

        What was loaded before is changed; where that fails, because somebody else
        was at it, the whole table is loaded anew.

        Raises:
            NftablesError: nft is missing or refused; the old rules stand.
        """
        loaded = self._loaded
        if loaded is not None:
            text = change_table(loaded, table)
            if not text:
                return False
            if await self._load(text, quiet=True):
                self._loaded = table
                return True
        self._loaded = None
        await self._load(replace_table(table))
        self._loaded = table
        return True

    async def _load(self, text: str, *, quiet: bool = False) -> bool:
        try:
            await asyncio.to_thread(run_nft, text, binary=self._binary)
        except NftablesError as error:
            if not quiet:
                raise
            log.warning("nftables_change_refused", table=self._table, error=str(error))
            return False
        log.debug("nftables_applied", table=self._table, bytes=len(text))
        return True

    async def remove(self) -> None:
        """Remove the table; a missing one is removed already.

        Raises:
            NftablesError: nft is missing or refused.
        """
        await asyncio.to_thread(remove_table, self._table, binary=self._binary)
        self._loaded = None


def remove_table(table: str, *, binary: str = "nft") -> None:
    """Remove a table of family inet; a missing one is removed already (blocking).

    Raises:
        NftablesError: nft is missing or refused.
    """
    # Adding first makes the deletion right whether or not the table is there.
    run_nft(f"table inet {table}\ndelete table inet {table}\n", binary=binary)


def list_tables(*, binary: str = "nft") -> tuple[str, ...]:
    """Return the names of all tables of family inet (blocking).

    Raises:
        NftablesError: nft is missing or refused.
    """
    words = [line.split() for line in _run([binary, "list", "tables"], "").splitlines()]
    return tuple(line[2] for line in words if line[:2] == ["table", "inet"])


def run_nft(ruleset: str, *, binary: str = "nft") -> None:
    """Run ``nft -f -`` (blocking).

    Raises:
        NftablesError: nft is missing or refused; nothing has changed.
    """
    _run([binary, "-f", "-"], ruleset)


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=_NFT_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise NftablesError(
            f"{command[0]} is not installed (package nftables)"
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise NftablesError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        first = next(iter(done.stderr.strip().splitlines()), "no reason given")
        raise NftablesError(f"{' '.join(command)}: {first}")
    return done.stdout
