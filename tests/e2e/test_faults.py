"""Some seeded kills in every run of the suite; ``make faults`` makes many."""

import os

import pytest

from support.faults import RECOVERY, STAGES, FaultRun, by_stage, schedule
from support.instance import running_podyard

SEED = 6
KILLS = 20

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.timeout(600),
    pytest.mark.faults,
]


def test_a_seed_replays_its_schedule_with_every_stage_in_it():
    rounds = schedule(SEED, KILLS)

    assert rounds == schedule(SEED, KILLS)
    assert rounds != schedule(SEED + 1, KILLS)
    assert sum(map(len, rounds)) == KILLS
    assert {kill.stage for kills in rounds for kill in kills} == {*STAGES, RECOVERY}
    for kills in rounds:
        planned = by_stage(kills)
        assert [kill for stage in STAGES for kill in planned[stage]] == kills
        assert all(group[0].stage == stage for stage, group in planned.items() if group)


def test_kills_at_any_stage_lose_nothing_and_leave_nothing(tmp_path):
    ledger = tmp_path / "ledger"
    ledger.mkdir()

    with running_podyard(f"some-faults-{os.getpid()}", tmp_path / "data") as instance:
        outcome = FaultRun(instance, ledger, SEED).run(schedule(SEED, KILLS))

    assert not outcome.findings, outcome.text()
    assert len(outcome.kills) == KILLS
