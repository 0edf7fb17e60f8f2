"""The machine is about to go down: Pods end in order, and nothing new begins."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
import yaml

from podyard.api.documents import Document
from support.api import Api, condition, has_ended, is_ready, phase, pod_path, until
from support.instance import RunningPodyard, podyard
from support.logind import FakeLogind, logind_on, private_bus
from support.manifests import SLEEP, container, pod

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers are run"),
    pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon"),
]

MESSAGE = "Pod was terminated in response to imminent node shutdown."


def hooked(name: str, marks: Path, script: str, **spec: object) -> Document:
    hook = {"exec": {"command": ["sh", "-c", f"echo {name} >> /marks/order; {script}"]}}
    main = container(
        SLEEP,
        lifecycle={"preStop": hook},
        volumeMounts=[{"name": "marks", "mountPath": "/marks"}],
    )
    volume = {"name": "marks", "hostPath": {"path": str(marks)}}
    return pod(name, main, volumes=[volume], **spec)


def node_ready(api: Api) -> str:
    (node,) = api.must("GET", "/api/v1/nodes")["items"]
    (ready,) = (c for c in node["status"]["conditions"] if c["type"] == "Ready")
    return f"{ready['status']} {ready['reason']}: {ready['message']}"


class Machine:
    """An instance on a machine with a logind of the test's."""

    def __init__(self, home: Path, bus: str) -> None:
        self.marks = home / "marks"
        self.manifests = home / "manifests"
        for directory in (self.marks, self.manifests):
            directory.mkdir()
        static = hooked("static", self.marks, "true")
        (self.manifests / "static.yaml").write_text(yaml.safe_dump(static))
        self.config = home / "config.yaml"
        self.config.write_text(
            f"staticPodPath: {self.manifests}\n"
            "shutdownGracePeriodByPodPriority:\n"
            "- {priority: 0, shutdownGracePeriodSeconds: 60}\n"
            "- {priority: 1000, shutdownGracePeriodSeconds: 60}\n"
        )
        self.instance = RunningPodyard(f"machine-{os.getpid()}", home / "data")
        self.bus = bus

    def up(self) -> Api:
        podyard(
            *("up", "--name", self.instance.name),
            *("--data-dir", str(self.instance.data_dir)),
            *("--detach", "--wait", "60s", "--port", "0", "--node-port", "0"),
            *("--config", str(self.config)),
            environment={"DBUS_SYSTEM_BUS_ADDRESS": self.bus},
        )
        return Api(self.instance.kubeconfig)

    def static(self, api: Api) -> Document | None:
        pods = api.must("GET", "/api/v1/namespaces/default/pods")["items"]
        found = [p for p in pods if p["metadata"]["name"].startswith("static-")]
        return found[0] if found else None

    def order(self) -> list[str]:
        file = self.marks / "order"
        return file.read_text().split() if file.exists() else []

    def populate(self) -> None:
        with_class = {"priorityClassName": "high"}
        api = self.up()
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1000,
            }
        )
        # The hook lasts until the test has seen what it wants to see meanwhile.
        wait = "until [ -e /marks/go ]; do sleep 0.1; done"
        api.create(hooked("plain", self.marks, wait, terminationGracePeriodSeconds=90))
        api.create(hooked("important", self.marks, "true", **with_class))
        for name in ("plain", "important"):
            api.until_pod(name, is_ready)
        until(lambda: (mirror := self.static(api)) and is_ready(mirror))
        api.close()

    def see_it_going(self) -> None:
        """While the machine is about to go down."""
        api = Api(self.instance.kubeconfig)
        until(lambda: "plain" in self.order())
        until(lambda: node_ready(api) == "False KubeletNotReady: node is shutting down")
        (node,) = api.must("GET", "/api/v1/nodes")["items"]
        late = pod("late", container(SLEEP), nodeName=node["metadata"]["name"])
        api.create(late)
        rejected = api.until_pod("late", has_ended)["status"]
        assert (rejected["phase"], rejected["reason"]) == ("Failed", "NodeShutdown")
        assert rejected["message"] == (
            "Pod was rejected: Pod was rejected as the node is shutting down."
        )
        assert "important" not in self.order()
        (self.marks / "go").touch()
        api.close()

    def see_it_gone(self) -> None:
        """Once nothing puts off the shutdown any longer."""
        api = Api(self.instance.kubeconfig)
        for name in ("plain", "important"):
            ended = api.must("GET", pod_path(name))
            assert phase(ended) == "Failed"
            assert ended["status"]["reason"] == "Terminated"
            assert ended["status"]["message"] == MESSAGE
            assert condition(ended, "DisruptionTarget") == "True TerminationByKubelet"
            assert condition(ended, "Ready").startswith("False")
        assert set(self.order()[:-1]) == {"plain", "static"}
        assert self.order()[-1] == "important"
        events = api.must("GET", "/api/v1/events?fieldSelector=reason=Shutdown")
        assert [e["message"] for e in events["items"]] == [
            "Shutdown manager detected shutdown event"
        ]
        api.close()

    def see_the_next_start(self) -> None:
        """Static Pods run again, and what has failed stays so."""
        self.instance.cli("down", "--keep-pods")
        api = self.up()
        until(lambda: (mirror := self.static(api)) and is_ready(mirror))
        assert phase(api.must("GET", pod_path("plain"))) == "Failed"
        assert node_ready(api).startswith("True")
        api.close()

    def down(self) -> None:
        self.instance.cli("down", "--grace", "1s", "--purge", check=False)


async def test_pods_end_by_priority_before_the_machine_and_none_begins(
    tmp_path: Path,
) -> None:
    async with (
        private_bus(tmp_path) as bus,
        logind_on(bus, FakeLogind(delay_s=200)) as logind,
    ):
        machine = Machine(tmp_path, bus)
        try:
            await asyncio.to_thread(machine.populate)
            await logind.until_locks(1)
            assert logind.inhibited[0][::3] == ("shutdown", "delay")

            logind.PrepareForShutdown(True)
            await asyncio.to_thread(machine.see_it_going)
            assert logind.locks_held == 1 or machine.order()[-1] == "important"
            await logind.until_locks(0)

            await asyncio.to_thread(machine.see_it_gone)
            await asyncio.to_thread(machine.see_the_next_start)
            await logind.until_locks(1)
        finally:
            await asyncio.to_thread(machine.down)
