"""Podyard and its containerd are killed at random moments; nothing may be lost by it.

A schedule is made of a seed: in every round a small mixed set of Pods is created and
deleted, with one kill in each stage of its life. What the Pods' own processes and hooks
wrote into a ledger on the host says what was really run, whatever Podyard believes.
"""

import asyncio
import ipaddress
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from podyard.api.documents import Document
from podyard.api.observed import ContainerState
from podyard.app.cleanup import census, cgroup_trees
from podyard.app.instances import Instance, InstanceTable
from podyard.app.pod_addresses import find_addresses
from podyard.app.teardown import wait_for_exit
from podyard.cli.control import ask
from podyard.containerd.processes import find_daemon
from podyard.cri.client import CriChannel, GrpcRuntimeService
from podyard.cri.services import CRIError
from support.api import (
    Api,
    is_ready,
    phase,
    pod_path,
    state_of,
    statuses,
    until,
)
from support.instance import RunningPodyard
from support.manifests import SLEEP, container, pod

Victim = Literal["podyard", "containerd", "both"]

#: Where in the life of a set of Pods the kills fall, in order.
STAGES = ("create", "PostStart", "running", "PreStop", "stop")
#: A kill of the Podyard that is just coming back from the kill before.
RECOVERY = "recovery"
#: How often a kill of Podyard is followed by one of its successor.
_AGAIN = 0.35
#: How long after the beginning of its stage a kill comes at the latest, in seconds.
LATEST_S = {
    "create": 1.5,
    "PostStart": 0.8,
    "running": 0.5,
    "PreStop": 1.0,
    "stop": 1.5,
    RECOVERY: 3.0,
}
#: The grace period of the Pod that does not heed its stop signal, in seconds.
GRACE_S = 6
#: What a container has at least between its stop signal and SIGKILL, in seconds.
LEAST_S = 2
#: How late the end may come on a busy machine, in seconds; less than a grace period.
SLACK_S = 3

_NOTE = (
    "note() {{ read -r line < /proc/1/stat; set -- $1 $2 $3 $line; "
    'read -r now rest < /proc/uptime; echo "$1 {pod} {container} ${{25}} $2 $3 $now" '
    ">> /ledger/events; }}; "
)


@dataclass(frozen=True)
class Kill:
    """One kill: in which stage, of whom, how long after the stage began."""

    stage: str
    victim: Victim
    delay_s: float


def schedule(seed: int, kills: int) -> list[list[Kill]]:
    """Return rounds of kills; the same for the same seed and count."""
    chance = random.Random(seed)
    victims: tuple[Victim, ...] = ("podyard", "containerd", "both")
    rounds: list[list[Kill]] = []
    left = kills

    def add(stage: str, victim: Victim) -> None:
        nonlocal left
        delay_s = round(chance.uniform(0, LATEST_S[stage]), 3)
        if left:
            rounds[-1].append(Kill(stage, victim, delay_s))
            left -= 1

    while left:
        rounds.append([])
        for stage in STAGES:
            victim = chance.choices(victims, weights=(5, 4, 1))[0]
            add(stage, victim)
            if victim != "containerd" and chance.random() < _AGAIN:
                add(RECOVERY, "podyard")
    return rounds


def by_stage(kills: list[Kill]) -> dict[str, list[Kill]]:
    """Return a round's kills by stage, with those that follow on them."""
    found: dict[str, list[Kill]] = {stage: [] for stage in STAGES}
    stage = STAGES[0]
    for kill in kills:
        stage = stage if kill.stage == RECOVERY else kill.stage
        found[stage].append(kill)
    return found


# ------------------------------------------------------------------------------ ledger


@dataclass(frozen=True)
class Entry:
    """A line of the ledger; ``instance`` tells instances of a container apart."""

    what: str
    pod: str
    container: str
    instance: str
    delivery: str
    attempt: str
    at_s: float


def read_ledger(file: Path) -> list[Entry]:
    """Return what was written, oldest first."""
    entries = []
    for line in file.read_text().splitlines() if file.exists() else []:
        words = line.split()
        if len(words) == 7:
            entries.append(Entry(*words[:6], float(words[6])))
    return entries


def uptime_s() -> float:
    """Return the time that the ledger is kept in."""
    return float(Path("/proc/uptime").read_text().split()[0])


# -------------------------------------------------------------------------------- Pods


def _noting(pod_name: str, name: str, script: str) -> str:
    return _NOTE.format(pod=pod_name, container=name) + script


def _hook(pod_name: str, name: str, hook: str, lasts_s: float) -> Document:
    script = f"note {hook} $0 $1; sleep {lasts_s}; note {hook}-end $0 $1"
    return {"exec": {"command": ["sh", "-c", _noting(pod_name, name, script)]}}


def mixed_pods(prefix: str, ledger: Path) -> list[Document]:
    """Return one of each kind of Pod that the schedule lets live and die."""
    mounts = [{"name": "ledger", "mountPath": "/ledger"}]

    def part(pod_name: str, name: str, script: str, **fields: object) -> Document:
        noting = _noting(pod_name, name, f"note start 0 0; {script}")
        return container(noting, name, volumeMounts=mounts, **fields)

    def made(name: str, *containers: Document, **spec: object) -> Document:
        spec.setdefault("terminationGracePeriodSeconds", 5)
        return pod(
            f"{prefix}-{name}",
            *containers,
            annotations={"podyard.dev/hook-delivery": "arguments"},
            volumes=[{"name": "ledger", "hostPath": {"path": str(ledger)}}],
            **spec,
        )

    def called(name: str) -> str:
        return f"{prefix}-{name}"

    alive = {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10}
    beats = (
        "trap '' TERM; while :; do cat /proc/uptime >> /ledger/"
        f"{called('stubborn')}.beat; sleep 0.1; done"
    )
    return [
        made("probed", part(called("probed"), "main", SLEEP, livenessProbe=alive)),
        made(
            "crew",
            part(called("crew"), "main", SLEEP),
            initContainers=[
                part(called("crew"), "first", "exit 0"),
                part(
                    called("crew"),
                    "side",
                    SLEEP,
                    restartPolicy="Always",
                    lifecycle={"preStop": _hook(called("crew"), "side", "PreStop", 0)},
                ),
            ],
        ),
        made(
            "hooked",
            part(
                called("hooked"),
                "main",
                SLEEP,
                lifecycle={
                    "postStart": _hook(called("hooked"), "main", "PostStart", 0.8),
                    "preStop": _hook(called("hooked"), "main", "PreStop", 1),
                },
            ),
            terminationGracePeriodSeconds=10,
        ),
        made(
            "stubborn",
            part(
                called("stubborn"),
                "main",
                beats,
                lifecycle={"preStop": _hook(called("stubborn"), "main", "PreStop", 1)},
            ),
            terminationGracePeriodSeconds=GRACE_S,
        ),
        made(
            "job",
            part(called("job"), "main", "sleep 2; note done 0 0"),
            restartPolicy="Never",
        ),
        made(
            "hasty",
            part(
                called("hasty"),
                "main",
                SLEEP,
                lifecycle={
                    "postStart": _hook(called("hasty"), "main", "PostStart", 0.3),
                    "preStop": _hook(called("hasty"), "main", "PreStop", 0.3),
                },
            ),
            terminationGracePeriodSeconds=10,
        ),
    ]


#: Containers with hooks, by the last part of their Pod's name.
HOOKS = {
    "PostStart": {("hooked", "main")},
    "PreStop": {
        ("crew", "side"),
        ("hooked", "main"),
        ("stubborn", "main"),
        ("hasty", "main"),
    },
}


# ---------------------------------------------------------------------------- the host


def belongings(row: Instance, data_dir: Path) -> Counter[str]:
    """Return all that an instance has on this host, without numbers that change."""
    found = Counter(re.sub(r"^process \d+", "process", one) for one in census(row))
    for tree in cgroup_trees(row):
        for directory, _, _ in os.walk(tree):
            found[f"cgroup {directory}"] += 1
    found.update(f"directory of Pod {path.name}" for path in data_dir.glob("pods/*"))
    found.update(f"address {file.name}" for file in find_addresses(row))
    return found


def network_namespaces() -> frozenset[str]:
    """Return the names of all of this host."""
    with suppress(FileNotFoundError):
        return frozenset(path.name for path in Path("/run/netns").iterdir())
    return frozenset()


def owned_namespaces(row: Instance, names: frozenset[str]) -> Iterator[str]:
    """Yield those with an address of ours; without an address if nobody else is here."""
    alone = len(InstanceTable().list()) == 1
    for name in sorted(names):
        said = subprocess.run(
            ["nsenter", f"--net=/run/netns/{name}", "ip", "-o", "-4", "addr"],
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            continue  # gone meanwhile
        addresses = [
            ipaddress.ip_address(text)
            for text in re.findall(r"inet ([0-9.]+)", said.stdout)
            if not text.startswith("127.")
        ]
        if any(a in row.pod_cidr for a in addresses) or (alone and not addresses):
            yield name


@dataclass(frozen=True)
class RuntimeLook:
    """What the runtime has, by Pod uid and container."""

    sandboxes: Counter[str]
    running: Counter[tuple[str, str]]
    pods: dict[str, str]

    @property
    def uids(self) -> frozenset[str]:
        return frozenset(self.pods)


def look_at_runtime(row: Instance) -> RuntimeLook:
    """Ask the runtime itself; waits for one that is just coming up."""

    async def look() -> RuntimeLook:
        channel = CriChannel(f"unix://{row.containerd_socket}")
        try:
            service = GrpcRuntimeService(channel)
            listed = await service.list_pod_sandboxes()
            containers = await service.list_containers()
        finally:
            await channel.close()
        pods = {
            one.pod_uid: one.labels.get("io.kubernetes.pod.name", "")
            for one in containers
        }
        pods |= {one.uid: one.name for one in listed}
        return RuntimeLook(
            Counter(one.uid for one in listed),
            Counter(
                (one.pod_uid, one.name)
                for one in containers
                if one.state is ContainerState.RUNNING
            ),
            pods,
        )

    until_s = time.monotonic() + 30
    while True:
        try:
            return asyncio.run(look())
        except CRIError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)


# --------------------------------------------------------------------------- the story


@dataclass
class Outcome:
    """What came of a schedule."""

    seed: int
    kills: list[Kill] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    up_s: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    def text(self) -> str:
        """Say what is wrong and how to see it again."""
        lines = "\n  ".join(self.findings)
        return (
            f"seed {self.seed}, {len(self.kills)} kills: {lines or 'nothing lost'}\n"
            f"again: python -m pytest tests/faults --seed {self.seed} "
            f"--kills {len(self.kills)}"
        )


class FaultRun:
    """Carries out a schedule on a running instance, and keeps what it finds wrong."""

    def __init__(
        self,
        instance: RunningPodyard,
        ledger: Path,
        seed: int,
        say: Callable[[str], None] = print,
    ) -> None:
        self.outcome = Outcome(seed)
        self._instance = instance
        self._row = instance.row
        self._api = Api(instance.kubeconfig)
        self._ledger = ledger
        self._say = say
        self._pid = int(ask(instance.name, "GET", "/status")["pid"])
        self._deleted_at: dict[str, float] = {}
        self._back_at_s = 0.0
        self._label = ""
        self._told: set[str] = set()

    def run(self, rounds: list[list[Kill]], *, within_s: float = 1e9) -> Outcome:
        """Carry out all rounds that begin in time, then look at what is left."""
        begin = time.monotonic()
        self._api.create(pod("resident"))
        self._api.until_pod("resident", is_ready)
        resident = statuses(self._api.pod("resident"))["main"]
        before = belongings(self._row, self._instance.data_dir)
        spaces = network_namespaces()
        for number, kills in enumerate(rounds):
            if time.monotonic() - begin > within_s:
                break
            self._label = f"round {number}"
            self._round(f"r{number}", kills)
            self._check_left(before)
            now = statuses(self._api.pod("resident"))["main"]
            if (now["containerID"], now["restartCount"]) != (
                resident["containerID"],
                resident["restartCount"],
            ):
                self._find(f"the Pod that was left alone has changed: {now}")
                resident = now
            self._say(
                f"{self._label}: {len(self.outcome.kills)} kills, "
                f"{len(self.outcome.findings)} findings, "
                f"{time.monotonic() - begin:.0f} s"
            )
        for name in owned_namespaces(self._row, network_namespaces() - spaces):
            self._find(f"network namespace {name} is left")
        self._api.delete(pod_path("resident"), gracePeriodSeconds=1)
        self._api.close()
        self.outcome.took_s = time.monotonic() - begin
        return self.outcome

    def _find(self, what: str) -> None:
        self.outcome.findings.append(f"{self._label}: {what}")
        self._say(f"FOUND {self._label}: {what}")

    # --- one set of Pods

    def _round(self, prefix: str, kills: list[Kill]) -> None:
        planned = by_stage(kills)
        pods = mixed_pods(prefix, self._ledger)
        names = [one["metadata"]["name"] for one in pods]
        self._api.create(*pods)
        hasty, hooked = f"{prefix}-hasty", f"{prefix}-hooked"
        if planned["create"]:
            # One Pod is deleted while it is being made, shortly before the kill.
            time.sleep(planned["create"][0].delay_s / 2)
        self._delete(hasty)
        self._kill(planned["create"], share=0.5)
        names.remove(hasty)
        with self._tolerating("PostStart"):
            until(lambda: self._entries("PostStart", hooked), within_s=40)
        self._kill(planned["PostStart"])
        with self._tolerating("all run"):
            until(lambda: all(map(self._is_fine, names)), within_s=60)
        self._check_running(names)
        self._kill(planned["running"])
        self._check_running(names)
        for name in names:
            self._delete(name)
        names.append(hasty)
        with self._tolerating("PreStop"):
            until(lambda: self._entries("PreStop", hooked), within_s=40)
        self._kill(planned["PreStop"])
        with self._tolerating("PreStop over"):
            until(
                lambda: (
                    self._entries("PreStop-end", hooked)
                    or self._api.is_gone(pod_path(hooked))
                ),
                within_s=40,
            )
        self._kill(planned["stop"])
        with self._tolerating("all gone"):
            until(
                lambda: all(self._api.is_gone(pod_path(name)) for name in names),
                within_s=40,
            )
        self._check_ledger(names)
        for name in names:
            self._api.delete(pod_path(name), gracePeriodSeconds=0)

    def _delete(self, name: str) -> None:
        self._deleted_at[name] = uptime_s()
        self._api.delete(pod_path(name))

    @contextmanager
    def _tolerating(self, stage: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            listed = self._api.must("GET", "/api/v1/namespaces/default/pods")["items"]
            told = "; ".join(
                f"{item['metadata']['name']} {phase(item)}"
                + (" deleting" if "deletionTimestamp" in item["metadata"] else "")
                + "".join(f" {c}={state_of(item, c)}" for c in statuses(item))
                for item in listed
            )
            self._find(f"waiting for {stage}: {error}; {told}")

    def _entries(self, what: str, name: str) -> list[Entry]:
        return [
            entry
            for entry in read_ledger(self._ledger / "events")
            if (entry.what, entry.pod) == (what, name)
        ]

    def _is_fine(self, name: str) -> bool:
        now = self._api.pod(name)
        return phase(now) == "Succeeded" if name.endswith("-job") else is_ready(now)

    # --- kills

    def _kill(self, kills: list[Kill], *, share: float = 1.0) -> None:
        if not kills:
            return
        kill, *again = kills
        self._label = re.sub(
            r"( after .*)?$",
            f" after {kill.stage} {kill.victim} {kill.delay_s}",
            self._label,
            count=1,
        )
        time.sleep(kill.delay_s * share)
        config = self._row.runtime_dir / "config.toml"
        daemon = find_daemon(config)
        if kill.victim != "containerd":
            os.kill(self._pid, signal.SIGKILL)
        if kill.victim != "podyard" and daemon is not None:
            with suppress(ProcessLookupError):
                os.kill(daemon.pid, signal.SIGKILL)
        self.outcome.kills.append(kill)
        if kill.victim == "containerd":
            try:
                until(lambda: find_daemon(config) not in {None, daemon}, within_s=30)
            except TimeoutError:
                self._find("containerd does not come back")
        else:
            wait_for_exit(self._pid, within_s=10)
            for one in again:
                self._kill_successor(one)
            begin = time.monotonic()
            try:
                self._instance.up()
            except AssertionError as error:
                self._find(f"podyard up: {error}")
                self._instance.up()
            self.outcome.up_s.append(time.monotonic() - begin)
            self._pid = int(ask(self._instance.name, "GET", "/status")["pid"])
        self._check_duplicates()
        self._back_at_s = uptime_s()

    def _kill_successor(self, kill: Kill) -> None:
        """Kill the next Podyard while it starts and finds out what there is."""
        self._label += f", {kill.stage} {kill.delay_s}"
        with self._instance.in_foreground() as process:
            time.sleep(kill.delay_s)
            process.kill()
        self.outcome.kills.append(kill)

    # --- checks

    def _check_duplicates(self) -> RuntimeLook:
        look = look_at_runtime(self._row)
        for (uid, name), count in look.running.items():
            if count > 1:
                self._find(f"{look.pods[uid]}/{name} runs {count} times")
        return look

    def _check_running(self, names: list[str]) -> None:
        """Every Pod that should run runs, in one sandbox, and the job ran once."""
        look = self._check_duplicates()
        for name in (*names, "resident"):
            now = self._api.pod(name)
            uid = now["metadata"]["uid"]
            if name.endswith("-job"):
                continue
            wanted = {one["name"] for one in now["spec"]["containers"]}
            wanted |= {
                one["name"]
                for one in now["spec"].get("initContainers", [])
                if one.get("restartPolicy") == "Always"
            }
            running = {part for owner, part in look.running if owner == uid}
            if running != wanted:
                self._find(f"{name} runs {sorted(running)}, not {sorted(wanted)}")
        stray = look.uids - {
            item["metadata"]["uid"]
            for item in self._api.must("GET", "/api/v1/namespaces/default/pods")[
                "items"
            ]
        }
        for uid in stray:
            self._find(f"the runtime has {look.pods[uid]}, which the API has not")

    def _check_ledger(self, names: list[str]) -> None:
        entries = read_ledger(self._ledger / "events")
        for name in names:
            mine = [entry for entry in entries if entry.pod == name]
            starts = [entry for entry in mine if entry.what == "start"]
            short = name.rsplit("-", 1)[1]
            if not starts and short != "hasty":
                self._find(f"{name} never ran")
            done = sum(entry.what == "done" for entry in mine)
            if short == "job" and done != 1:
                self._find(f"the job was done {done} times in {len(starts)} starts")
            by_container: dict[str, list[Entry]] = {}
            for entry in starts:
                by_container.setdefault(entry.container, []).append(entry)
            for part, begun in by_container.items():
                self.outcome.counts["containers"] += len(begun)
                self.outcome.counts["containers begun again"] += len(begun) - 1
                if begun[-1].at_s > self._deleted_at[name] + SLACK_S:
                    self._find(f"{name}/{part} started after its Pod was deleted")
                cut: list[Entry] = []
                if (short, part) in HOOKS["PostStart"]:
                    cut = self._cut_off(name, part, begun, mine)
                    owed = [entry for entry in begun if entry not in cut]
                    self._check_hook(name, part, "PostStart", owed, mine)
                if (short, part) in HOOKS["PreStop"]:
                    # Only the last instance lived when its Pod was deleted.
                    owed = [entry for entry in begun[-1:] if entry not in cut]
                    self._check_hook(name, part, "PreStop", owed, mine)
        self._check_grace(next(one for one in names if one.endswith("-stubborn")))

    def _cut_off(
        self, name: str, part: str, begun: list[Entry], mine: list[Entry]
    ) -> list[Entry]:
        """Return the instances that the runtime has ended while it began them.

        It gives up a start whose asker dies, and kills what it has started.
        Such an instance may have said that it runs; the node's records must say that
        it was gone before its hook.
        """
        told = self._instance.cli("hooks", name, "-o", "json", check=False).stdout
        gone = sum(
            (row["hook"], row["container"], row.get("result"))
            == ("PostStart", part, "container gone")
            for row in json.loads(told or "[]")
        )
        delivered = {entry.instance for entry in mine if entry.what == "PostStart"}
        cut = [entry for entry in begun if entry.instance not in delivered][:gone]
        self.outcome.counts["starts cut off"] += len(cut)
        return cut

    def _check_hook(
        self, name: str, part: str, hook: str, owed: list[Entry], mine: list[Entry]
    ) -> None:
        for start in owed:
            delivered = [
                entry
                for entry in mine
                if (entry.what, entry.container, entry.instance)
                == (hook, part, start.instance)
            ]
            self.outcome.counts[f"{hook} owed"] += 1
            self.outcome.counts[f"{hook} delivered again"] += max(0, len(delivered) - 1)
            if not delivered:
                self._find(f"{hook} of {name}/{part} was lost")
            if len({entry.delivery for entry in delivered}) > 1:
                self._find(f"{hook} of {name}/{part} changed its delivery id")
            attempts = [entry.attempt for entry in delivered]
            if len(set(attempts)) != len(attempts):
                self._find(f"{hook} of {name}/{part} repeated attempt {attempts}")

    def _check_grace(self, name: str) -> None:
        beat = self._ledger / f"{name}.beat"
        deadline_s = self._deleted_at[name] + GRACE_S
        if not beat.exists() or not beat.read_text().strip():
            return  # already told: it never ran
        ended_s = float(beat.read_text().split()[-2])
        # Past the deadline nobody can end it before Podyard is back.
        latest_s = max(
            deadline_s, self._back_at_s if self._back_at_s > deadline_s else 0
        )
        over_s = ended_s - deadline_s
        self.outcome.counts["grace periods"] += 1
        if ended_s > latest_s + LEAST_S + SLACK_S:
            self._find(f"{name} lived {over_s:.1f} s longer than its grace period")

    def _check_left(self, before: Counter[str]) -> None:
        """After all Pods of a round are gone nothing of them is here."""
        resident = self._api.pod("resident")["metadata"]["uid"]

        def left() -> list[str]:
            look = look_at_runtime(self._row)
            found = [
                f"{look.pods[uid]} in the runtime" for uid in look.uids - {resident}
            ]
            if look.sandboxes[resident] != 1:
                found.append(f"{look.sandboxes[resident]} sandboxes of resident")
            now = belongings(self._row, self._instance.data_dir)
            found += list((now - before).elements())
            return found + [f"no {one}" for one in (before - now).elements()]

        try:
            until(lambda: not set(left()) - self._told, within_s=60)
        except TimeoutError:
            for one in left():
                if one not in self._told:
                    self._find(f"left: {one}")
                self._told.add(one)
