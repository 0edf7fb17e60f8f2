"""A Pod's own files: directories, termination messages, logs, links."""

from pathlib import Path

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.runtime import IdMapping
from podyard.node.sync.files import PodFiles
from podyard.node.sync.userns import UserNamespaces

pytestmark = pytest.mark.integration


@pytest.fixture
def files(tmp_path: Path) -> PodFiles:
    return PodFiles(tmp_path / "pods", tmp_path / "logs", tmp_path / "links")


def make_pod(name: str = "web", **spec: object) -> Pod:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return Pod.of({"metadata": metadata, "spec": spec})


def write_log(files: PodFiles, pod: Pod, *lines: str, attempt: int = 0) -> Path:
    path = files.log_file(pod.namespace, pod.name, pod.uid, "c", attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"2026-01-01T00:00:00Z stdout F {x}\n" for x in lines))
    return path


def test_a_termination_message_is_writable_by_anybody(files: PodFiles) -> None:
    path = files.prepare_container(make_pod(), "c", 3)

    assert path.stat().st_mode & 0o777 == 0o666
    assert path.read_text() == ""
    path.write_text("left over")
    assert files.prepare_container(make_pod(), "c", 3).read_text() == ""


def test_the_last_four_kilobytes_of_a_message_count(files: PodFiles) -> None:
    path = files.prepare_container(make_pod(), "c", 0)
    path.write_text("a" * 5000 + "end")

    text = files.read_termination("uid-web", "c", 0, log=None)

    assert len(text) == 4096
    assert text.endswith("end")


@pytest.mark.parametrize(
    ("written", "falls_back", "expected"),
    [
        pytest.param("why", True, "why", id="message-first"),
        pytest.param("", True, "one\ntwo\n", id="log-where-there-is-none"),
        pytest.param("", False, "", id="no-fallback-wanted"),
    ],
)
def test_a_log_may_stand_in(
    files: PodFiles, written: str, falls_back: bool, expected: str
) -> None:
    pod = make_pod()
    files.prepare_container(pod, "c", 0).write_text(written)
    log = write_log(files, pod, "one", "two")

    text = files.read_termination(pod.uid, "c", 0, log=log if falls_back else None)

    assert text == expected


def test_only_the_last_eighty_lines_stand_in(files: PodFiles) -> None:
    pod = make_pod()
    log = write_log(files, pod, *(f"line {n}" for n in range(200)))

    text = files.read_termination(pod.uid, "c", 0, log=log)

    assert text.splitlines()[0] == "line 120"
    assert len(text.splitlines()) == 80


def test_restart_counts_are_read_off_the_logs(files: PodFiles) -> None:
    pod = make_pod()
    assert files.next_attempt(pod, "c") == 0
    write_log(files, pod, "x", attempt=0)
    path = write_log(files, pod, "x", attempt=4)
    (path.parent / "4.log.20260101-000000").write_text("")

    assert files.next_attempt(pod, "c") == 5


def test_links_lead_to_logs_and_die_with_them(files: PodFiles) -> None:
    pod = make_pod()
    log = write_log(files, pod, "x")
    files.link_log("web_default_c-1.log", log)
    files.link_log("web_default_c-1.log", log)
    files.link_log("nowhere.log", log.with_name("9.log"))

    link = files.links_dir / "web_default_c-1.log"
    assert link.read_text() == log.read_text()
    assert [p.name for p in files.links_dir.iterdir()] == ["web_default_c-1.log"]
    files.remove_logs(pod.uid)

    assert list(files.links_dir.iterdir()) == []
    assert files.logged_uids() == frozenset()


def test_a_pods_directory_is_removed_whole(files: PodFiles) -> None:
    pod = make_pod()
    files.make_pod_dirs(pod)
    files.prepare_container(pod, "c", 0)
    assert files.known_uids() == {"uid-web"}
    assert files.logged_uids() == {"uid-web"}

    files.remove_pod(pod.uid)
    files.remove_pod(pod.uid)

    assert files.known_uids() == frozenset()


def test_a_hosts_file_is_rewritten_in_place(files: PodFiles) -> None:
    pod = make_pod()
    files.make_pod_dirs(pod)
    path = files.write_hosts(pod.uid, "one")
    inode = path.stat().st_ino

    assert files.write_hosts(pod.uid, "two").read_text() == "two"
    assert path.stat().st_ino == inode


def test_user_namespaces_are_apart_and_remembered(tmp_path: Path) -> None:
    first, second = make_pod("a", hostUsers=False), make_pod("b", hostUsers=False)
    spaces = UserNamespaces(tmp_path)

    one, two = spaces.ensure(first), spaces.ensure(second)

    assert one is not None
    assert two is not None
    assert one.uids == (IdMapping(65536, 0, 65536),)
    assert two.uids == (IdMapping(131072, 0, 65536),)
    assert UserNamespaces(tmp_path).ensure(first) == one
    assert spaces.ensure(make_pod("c")) is None
