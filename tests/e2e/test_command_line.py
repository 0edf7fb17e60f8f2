"""The command line, as a person meets it when things are not as they should be."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.api import is_ready, until
from support.instance import RunningPodyard, podyard
from support.manifests import SLEEP, container, pod

#: Runs a program as somebody who is not root, wherever its files are.
AS_NOBODY = ("unshare", "--user")


@pytest.fixture(autouse=True)
def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root: what root does is compared with what others may")


def sentence(done) -> str:
    """Return what was said, which has to be a sentence and no traceback."""
    said = done.stderr
    assert "Traceback" not in said, said
    assert done.returncode != 0
    return said


# --- up refuses


def test_up_without_root_says_what_it_needs(tmp_path):
    done = podyard(
        "up", "--data-dir", str(tmp_path / "d"), check=False, through=AS_NOBODY
    )

    assert done.returncode == 1
    assert "needs root" in sentence(done)
    assert "sudo podyard up" in done.stderr


@pytest.mark.parametrize("how", [(), ("-d",)], ids=["foreground", "detached"])
def test_up_on_a_port_in_use_says_which_and_what_to_do(tmp_path, how):
    name = f"port-{os.getpid()}"
    instance = RunningPodyard(name, tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        try:
            done = instance.cli(
                "up", *how, "--port", str(port), "--node-port", "0", check=False
            )
        finally:
            instance.cli("down", "--purge", check=False)

    said = sentence(done)
    assert str(port) in said
    assert "in use" in said
    assert "--port" in said


def test_up_on_an_address_that_is_not_of_this_host_names_it(tmp_path):
    instance = RunningPodyard(f"listen-{os.getpid()}", tmp_path / "data")
    try:
        done = instance.cli(
            *("up", "--port", "0", "--node-port", "0", "--listen", "192.0.2.1"),
            check=False,
        )

        assert "--listen 192.0.2.1" in sentence(done)
    finally:
        instance.cli("down", "--purge", check=False)


def test_up_with_a_runtime_that_is_not_there_says_so(tmp_path):
    instance = RunningPodyard(f"none-{os.getpid()}", tmp_path / "data")
    try:
        for endpoint, says in (
            ("unix:///not/there.sock", "there is no socket at /not/there.sock"),
            ("tcp://1.2.3.4:5", "must be a unix socket"),
        ):
            done = instance.cli(
                "up",
                "-d",
                "--port",
                "0",
                "--node-port",
                "0",
                "--runtime-endpoint",
                endpoint,
                check=False,
            )
            assert says in sentence(done)
    finally:
        instance.cli("down", "--purge", check=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("no-such-key: 1\n", 'unknown key "no-such-key"', id="unknown-key"),
        pytest.param("port: [\n", "config.yaml", id="broken-yaml"),
        pytest.param("- a\n- b\n", "config.yaml", id="a-list"),
        pytest.param("port: many\n", "port", id="wrong-type"),
        pytest.param("maxPods: 0\n", "must be between 1 and 5000", id="out-of-range"),
        pytest.param("semantics: mine\n", "must be one of: documented, upstream", id="no-such-choice"),
        pytest.param("feature-gates: {NoSuchGate: true}\n", "NoSuchGate", id="unknown-gate"),
    ],
)  # fmt: skip
def test_a_bad_config_file_is_refused_with_its_name_and_the_fault(tmp_path, text, says):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    done = podyard(
        "up", "--data-dir", str(tmp_path / "d"), "--config", str(file), check=False
    )

    assert done.returncode == 2
    assert says in sentence(done)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("up", "--name", "Not A Name"), "DNS label", id="name"),
        pytest.param(("up", "--port", "99999"), "between 0 and 65535", id="port"),
        pytest.param(("up", "--wait", "soon"), "--wait", id="span"),
        pytest.param(("up", "--config", "/not/there"), "/not/there", id="no-file"),
        pytest.param(("down", "--keep-pods", "--purge"), "exclude each other", id="both"),
        pytest.param(("fly",), "invalid choice", id="command"),
        pytest.param((), "usage", id="nothing"),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_a_sentence(arguments, says):
    done = podyard(*arguments, check=False)

    assert done.returncode == 2
    assert says in sentence(done)


def test_a_data_dir_that_cannot_be_made_is_told():
    done = podyard(
        "up",
        "-d",
        "--name",
        f"nodir-{os.getpid()}",
        "--data-dir",
        "/proc/nothing/here",
        check=False,
    )

    assert "/proc/nothing" in sentence(done)


# --- what runs


def test_status_tells_of_the_instance_and_its_pods(instance, api):
    api.create(pod("shown"))
    api.until_pod("shown", is_ready)

    status = instance.status()
    text = instance.cli("status").stdout
    api.delete("/api/v1/namespaces/default/pods/shown", gracePeriodSeconds=0)

    assert status["name"] == instance.name
    assert status["server"].startswith("https://127.0.0.1:")
    assert status["dataDir"] == str(instance.data_dir)
    shown = [entry for entry in status["pods"] if entry["name"] == "shown"]
    assert [(p["namespace"], p["status"], p["restarts"]) for p in shown] == [
        ("default", "Running", 0)
    ]
    assert "shown" in text


def test_status_of_what_does_not_run_ends_with_3():
    done = podyard("status", "--name", "nobody-runs-this", check=False)

    assert done.returncode == 3
    assert "podyard up -d" in sentence(done)


def test_doctor_ends_with_0_where_all_is_there_and_4_where_something_is_missing(
    tmp_path,
):
    here = podyard("doctor", "-o", "json", check=False)
    as_nobody = podyard("doctor", check=False, through=AS_NOBODY)

    facts = {fact["name"]: fact for fact in json.loads(here.stdout)}
    missing = [name for name, fact in facts.items() if fact["verdict"] == "missing"]
    assert (here.returncode, missing) == (0, [])
    assert {"containerd", "runc", "CNI plugins", "cgroups", "kernel"} <= set(facts)
    assert as_nobody.returncode == 4
    assert "MISSING" in as_nobody.stdout
    assert "run Podyard as root" in as_nobody.stdout


def test_apply_and_logs_do_the_first_steps_without_kubectl(instance, api, tmp_path):
    file = tmp_path / "pod.yaml"
    file.write_text(
        yaml.safe_dump(pod("first-steps", container(f"echo hello there; {SLEEP}")))
    )

    applied = instance.cli("apply", "-f", str(file), "--wait", "60s").stdout
    said = until(lambda: instance.cli("logs", "first-steps").stdout)
    broken = instance.cli("apply", "-f", "/not/there.yaml", check=False)
    unknown = instance.cli("logs", "nobody", check=False)
    api.delete("/api/v1/namespaces/default/pods/first-steps", gracePeriodSeconds=0)

    assert "first-steps" in applied
    assert said == "hello there\n"
    assert "/not/there.yaml" in sentence(broken)
    assert '"nobody" not found' in sentence(unknown)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "pod.yaml: No such file or directory", id="no-file"),
        pytest.param("kind: [Pod", "pod.yaml: is not valid YAML: line 2", id="no-yaml"),
        pytest.param("- 1", "must be an object with a kind", id="no-object"),
        pytest.param("kind: Pod\nkind: Pod", 'key "kind" stands twice', id="twice"),
        pytest.param(
            yaml.safe_dump(pod("typo", container(SLEEP, imagine="x"))),
            'unknown field "spec.containers[0].imagine"',
            id="typo",
        ),
    ],
)
def test_apply_names_what_is_wrong_with_a_file(instance, tmp_path, text, says):
    if text is not None:
        (tmp_path / "pod.yaml").write_text(text)

    done = instance.cli("apply", "-f", str(tmp_path / "pod.yaml"), check=False)

    assert says in sentence(done)


def test_the_kubeconfig_is_private_and_merging_keeps_what_is_there(instance, tmp_path):
    mine = tmp_path / "home/.kube/config"
    mine.parent.mkdir(parents=True)
    theirs = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "work",
        "clusters": [{"name": "work", "cluster": {"server": "https://work.example"}}],
        "users": [{"name": "work", "user": {"token": "x"}}],
        "contexts": [{"name": "work", "context": {"cluster": "work", "user": "work"}}],
    }
    mine.write_text(yaml.safe_dump(theirs))

    for _ in range(2):
        instance.cli("kubeconfig", "--merge", str(mine))
    merged = yaml.safe_load(mine.read_text())
    shown = instance.cli("kubeconfig").stdout
    path = instance.cli("kubeconfig", "--path").stdout.strip()

    for kind in ("clusters", "users", "contexts"):
        names = [entry["name"] for entry in merged[kind]]
        assert theirs[kind][0] in merged[kind]
        assert len(names) == 2
    assert yaml.safe_load(shown)["kind"] == "Config"
    assert Path(path) == instance.kubeconfig
    assert Path(path).stat().st_mode & 0o077 == 0


def test_a_broken_kubeconfig_is_not_merged_into(instance, tmp_path):
    mine = tmp_path / "config"
    mine.write_text("clusters: [")

    done = instance.cli("kubeconfig", "--merge", str(mine), check=False)

    assert str(mine) in sentence(done)
    assert mine.read_text() == "clusters: ["


def test_completion_and_version_are_printed():
    version = podyard("version", "-o", "json").stdout
    completion = podyard("completion", "bash").stdout

    assert json.loads(version)["kubernetes"].startswith("v1.36")
    assert "podyard" in completion


# --- up runs


def test_up_in_the_foreground_tells_its_steps_and_ends_on_a_signal(tmp_path):
    name = f"front-{os.getpid()}"
    instance = RunningPodyard(name, tmp_path / "data")
    home = tmp_path / "home"
    home.mkdir()
    out = os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "podyard",
            "up",
            "--name",
            name,
            "--data-dir",
            str(tmp_path / "data"),
            "--port",
            "0",
            "--node-port",
            "0",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=out,
        env={
            **os.environ,
            "HOME": str(home),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src"),
        },
        cwd=tmp_path,
    )
    os.close(out)
    try:
        until(
            lambda: (
                "is Ready" in (tmp_path / "said").read_text()
                or process.poll() is not None
            )
        )
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        instance.kubeconfig.stat()
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        instance.cli("down", "--purge", check=False)

    said = (tmp_path / "said").read_text()
    assert process.returncode == 0, said
    assert "ok: API answers at https://127.0.0.1:" in said
    assert "Traceback" not in said
    assert stdout == b""
    assert list(home.iterdir()) == []


def test_settings_come_from_variables_too(tmp_path):
    done = podyard(
        "status",
        check=False,
        environment={"PODYARD_NAME": "from-the-environment"},
    )

    assert "from-the-environment" in sentence(done)
