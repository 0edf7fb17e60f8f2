"""Changing a table leads where loading it whole leads; others' rules stay."""

import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from podyard.network.build import HostPort, ServiceRule
from podyard.network.decide import NetworkFacts, decide_table
from podyard.network.nftables import Nftables, list_tables, remove_table, run_nft
from podyard.network.table import Table, change_table, replace_table

pytestmark = pytest.mark.integration

FACTS = NetworkFacts(
    f"pyt-{os.getpid()}",
    "pyt-none",
    "198.19.0.0/24",
    "198.18.0.0/16",
    bridged_packets_are_filtered=False,
)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    remove_table(FACTS.table)


def listed(name: str = FACTS.table) -> list[str]:
    """Return every word of a table that counts, in an order that stays."""
    done = subprocess.run(
        ["nft", "-s", "list", "table", "inet", name],
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout
    for mark in "{},":
        text = text.replace(mark, "\n")
    return sorted(line.strip() for line in text.splitlines() if line.strip())


def some_table(chance: random.Random) -> Table:
    """Return a table of Services and ports of every kind."""
    rules = [
        ServiceRule(
            (f"198.18.0.{number}",),
            80,
            chance.choice(("TCP", "UDP", "SCTP")),
            _ends(chance),
            node_port=chance.choice((0, 20000 + number)),
            external_ips=chance.choice(((), (f"192.0.2.{number}",))),
            outside=chance.choice((None, _ends(chance))),
            affinity_s=chance.choice((0, 30)),
        )
        for number in chance.sample(range(1, 20), 12)
    ]
    ports = [
        HostPort(
            5000 + n, "TCP", (f"198.19.0.{n}", 80), chance.choice(("", "127.0.0.1"))
        )
        for n in chance.sample(range(2, 12), 4)
    ]
    return decide_table(FACTS, services=rules, ports=ports)


def _ends(chance: random.Random) -> tuple[tuple[str, int], ...]:
    near = [(f"198.19.0.{n}", 8080) for n in range(2, 14)]
    ends = [*near, ("192.0.2.200", 80)]
    return tuple(sorted(chance.sample(ends, chance.choice((0, 1, 2, 3, 10)))))


@pytest.mark.parametrize("seed", range(5))
def test_changes_lead_where_loading_whole_leads(seed: int) -> None:
    chance = random.Random(seed)
    present = some_table(chance)
    run_nft(replace_table(present))
    for _ in range(4):
        wanted = some_table(chance)
        run_nft(change_table(present, wanted))
        changed = listed()
        run_nft(replace_table(wanted))
        assert changed == listed()
        present = wanted


async def test_a_table_that_somebody_removed_is_loaded_whole() -> None:
    nftables = Nftables(FACTS.table)
    chance = random.Random(1)
    await nftables.apply(some_table(chance))
    remove_table(FACTS.table)

    wanted = some_table(chance)
    assert await nftables.apply(wanted)

    after = listed()
    run_nft(replace_table(wanted))
    assert after == listed()


async def test_rules_of_others_are_left_alone() -> None:
    other = f"{FACTS.table}-other"
    hook = "type filter hook input priority 5;"
    rule = "tcp dport 4711 counter accept"
    run_nft(f"table inet {other} {{\nchain mine {{\n{hook}\n{rule}\n}}\n}}\n")
    try:
        before = listed(other)
        nftables = Nftables(FACTS.table)
        chance = random.Random(2)
        for _ in range(3):
            await nftables.apply(some_table(chance))
        await nftables.remove()

        assert listed(other) == before
        assert FACTS.table not in list_tables()
    finally:
        remove_table(other)


async def test_who_went_where_is_remembered_over_changes_of_others() -> None:
    sticky = ServiceRule(
        ("198.18.0.1",),
        80,
        "TCP",
        (("198.19.0.2", 1), ("198.19.0.3", 1)),
        affinity_s=90,
    )
    nftables = Nftables(FACTS.table)
    await nftables.apply(decide_table(FACTS, services=[sticky]))
    memory = "seen-service-198.18.0.1-tcp-80-to-198.19.0.2-1"
    run_nft(f"add element inet {FACTS.table} {memory} {{ 198.19.0.77 timeout 60s }}\n")

    other = replace(sticky, ips=("198.18.0.2",), affinity_s=0)
    fewer = replace(sticky, endpoints=sticky.endpoints[:1])
    await nftables.apply(decide_table(FACTS, services=[fewer, other]))

    assert any("198.19.0.77" in line for line in listed())
