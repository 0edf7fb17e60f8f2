"""One round of seeded kills in every run of the suite; ``make faults`` makes many."""

import os

import pytest

from support.faults import FaultRun, schedule
from support.instance import running_podyard

SEED = 6
KILLS = 5

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.timeout(300),
    pytest.mark.faults,
]


def test_kills_at_any_stage_lose_nothing_and_leave_nothing(tmp_path):
    ledger = tmp_path / "ledger"
    ledger.mkdir()

    with running_podyard(f"some-faults-{os.getpid()}", tmp_path / "data") as instance:
        outcome = FaultRun(instance, ledger, SEED).run(schedule(SEED, KILLS))

    assert not outcome.findings, outcome.text()
    assert len(outcome.kills) == KILLS
