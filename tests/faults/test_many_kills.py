"""``make faults``: many seeded kills; what comes of them goes to FAULTS.md."""

import os
import platform
import secrets
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.faults import RECOVERY, STAGES, FaultRun, Outcome, schedule
from support.instance import running_podyard

PAGE = Path(__file__).resolve().parents[2] / "benchmarks/FAULTS.md"
#: Written by people; what stands below it is kept.
EARLIER = "\n## Earlier runs\n"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.timeout(0),
]


def test_many_kills_lose_nothing_and_leave_nothing(request, tmp_path, capsys):
    kills = request.config.getoption("--kills", None)
    if kills is None:
        pytest.skip("takes long: make faults")
    seed = request.config.getoption("--seed")
    seed = secrets.randbelow(2**31) if seed is None else seed
    ledger = tmp_path / "ledger"
    ledger.mkdir()

    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}\n")
        with running_podyard(f"faults-{os.getpid()}", tmp_path / "data") as instance:
            outcome = FaultRun(instance, ledger, seed).run(
                schedule(seed, kills), within_s=request.config.getoption("--within")
            )
        text = PAGE.read_text() if PAGE.exists() else ""
        PAGE.write_text(page(outcome, kills) + "".join(text.partition(EARLIER)[1:]))

    assert not outcome.findings, outcome.text()


def page(outcome: Outcome, asked: int) -> str:
    """Return the result as a page."""
    done = Counter((kill.stage, kill.victim) for kill in outcome.kills)
    victims = ("podyard", "containerd", "both")
    rows = [
        f"| {stage} | {' | '.join(str(done[stage, victim]) for victim in victims)} |"
        for stage in (*STAGES, RECOVERY)
    ]
    up = sorted(outcome.up_s) or [0.0]
    counted = [f"| {what} | {count} |" for what, count in outcome.counts.items()]
    what = (
        "Made by `make faults`: Podyard, its containerd, or both at once are killed "
        "with SIGKILL at random moments while a small mixed set of Pods is created "
        "and deleted; `recovery` is the Podyard that is just coming back from the kill "
        "before (`tests/support/faults.py`)."
    )
    result = (
        f"Seed {outcome.seed}: **{len(outcome.kills)} kills** of {asked} asked for, "
        f"in {outcome.took_s:.0f} s on {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; "
        f"**{len(outcome.findings)} findings**."
    )
    speed = (
        f"`podyard up` after a kill took {up[len(up) // 2]:.1f} s (median), "
        f"{up[-1]:.1f} s at most."
    )
    nothing = (
        "None: no lost Pod, no duplicate running container, no hook lost, no second "
        "grace period, no leaked sandbox, mount, network namespace or cgroup."
    )
    seeds = (
        "A seed fixes the schedule: stages, victims and delays. "
        "What a kill meets also depends on the machine."
    )
    findings = [f"- {one}" for one in outcome.findings] or [nothing]
    lines = [
        "# Killed at random",
        "",
        what,
        "",
        result,
        speed,
        "",
        "| stage | podyard | containerd | both |",
        "|---|---|---|---|",
        *rows,
        "",
        "| what was counted | |",
        "|---|---|",
        *counted,
        "",
        "## Findings",
        "",
        *findings,
        "",
        "## Again",
        "",
        "```sh",
        f"make faults SEED={outcome.seed} KILLS={asked}",
        "```",
        "",
        seeds,
        "",
    ]
    return "\n".join(lines)
