"""The command line's own behaviour, without a Podyard."""

import io
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from podyard.cli import commands
from podyard.cli.build import build_age, build_table
from podyard.cli.main import build_parser, run
from podyard.cli.parts import Command
from podyard.cli.progress import Progress
from podyard.lib.parts import load_parts


def test_no_command_prints_help_and_is_wrong_usage(capsys):
    assert run([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_version_is_data_on_stdout(capsys):
    assert run(["version", "-o", "json"]) == 0

    assert orjson.loads(capsys.readouterr().out)["kubernetes"] == "v1.36.2"


def test_every_command_takes_name_and_data_dir():
    parser = build_parser(load_parts(commands, Command))

    for part in load_parts(commands, Command):
        if part.name in {"version", "status", "down", "doctor", "kubeconfig", "up"}:
            args = parser.parse_args([part.name, "--name", "a", "--data-dir", "/d"])
            assert (args.name, args.data_dir) == ("a", "/d")


def test_a_bad_setting_is_wrong_usage_and_named(capsys):
    assert run(["up", "--port", "many"]) == 2
    assert "--port" in capsys.readouterr().err


def _broken(args: object) -> int:
    password = "correct horse"
    raise ExceptionGroup("tasks", [LookupError(f"no {len(password)}")])


BROKEN = Command(name="break", help="", arguments=lambda _: None, run=_broken)


def test_a_fault_of_ours_is_one_line_without_a_traceback(capsys):
    assert run(["break"], [BROKEN]) == 1

    assert capsys.readouterr().err == (
        "podyard break: internal error: LookupError: no 13 "
        "(PODYARD_LOG_LEVEL=debug tells where)\n"
    )


def test_where_a_fault_of_ours_is_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("PODYARD_LOG_LEVEL", "debug")

    assert run(["break"], [BROKEN]) == 1

    told = capsys.readouterr().err
    assert "in _broken" in told
    assert "correct horse" not in told.replace('password = "correct horse"', "")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("CrashLoopBackOff", "The container keeps ending", id="known"),
        pytest.param("crashloopbackoff", "The container keeps ending", id="any-case"),
        pytest.param("OutOfcpu", "OutOf* (status.reason of a Pod", id="of-a-resource"),
    ],
)
def test_explain_reason_says_what_it_means(name, told, capsys):
    assert run(["explain", "reason", name]) == 0

    assert told in capsys.readouterr().out


def test_explain_reason_suggests_what_may_have_been_meant(capsys):
    assert run(["explain", "reason", "CrashBackOff"]) == 1

    assert "did you mean CrashLoopBackOff" in capsys.readouterr().err


def test_a_bad_span_is_wrong_usage(capsys):
    assert run(["down", "--grace", "soon"]) == 2
    assert '"soon" is not a duration' in capsys.readouterr().err


def test_keeping_pods_and_purging_exclude_each_other(capsys):
    assert run(["down", "--keep-pods", "--purge"]) == 2


def test_a_kubeconfig_that_is_not_there_yet_says_what_to_do(tmp_path, capsys):
    assert run(["kubeconfig", "--data-dir", str(tmp_path)]) == 3
    assert "podyard up" in capsys.readouterr().err


OURS = """
apiVersion: v1
kind: Config
current-context: podyard
clusters: [{name: podyard, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: podyard, user: {token: x}}]
contexts: [{name: podyard, context: {cluster: podyard, user: podyard}}]
"""


@pytest.mark.parametrize(
    ("variable", "target"),
    [
        pytest.param("", "home/.kube/config", id="unset"),
        pytest.param("{mine}", "mine", id="mine"),
        pytest.param("{ours}", "home/.kube/config", id="ours"),
        pytest.param("{ours}:{mine}", "mine", id="ours-and-mine"),
    ],
)
def test_a_kubeconfig_is_never_merged_into_itself(
    variable, target, tmp_path, monkeypatch, capsys
):
    ours, mine = tmp_path / "data/kubeconfig", tmp_path / "mine"
    ours.parent.mkdir()
    ours.write_text(OURS)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", variable.format(ours=ours, mine=mine))

    assert run(["kubeconfig", "--merge", "--data-dir", str(ours.parent)]) == 0

    assert capsys.readouterr().out == f"{tmp_path / target}\n"
    assert (tmp_path / target).exists()
    assert ours.read_text() == OURS


def test_a_kubeconfig_that_is_ours_is_refused_by_name(tmp_path, capsys):
    ours = tmp_path / "kubeconfig"
    ours.write_text(OURS)

    arguments = ["kubeconfig", "--merge", str(ours), "--data-dir", str(tmp_path)]
    assert run(arguments) == 1

    assert "this instance's own" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_commands(shell, capsys):
    assert run(["completion", shell]) == 0
    assert "kubeconfig" in capsys.readouterr().out


def test_progress_is_plain_where_there_is_no_terminal():
    stream = io.StringIO()

    Progress(stream).done("store open", 0.1234)

    assert stream.getvalue() == "ok: store open (0.12 s)\n"


def test_a_failed_step_is_told_and_raises():
    stream = io.StringIO()

    with pytest.raises(ValueError, match="no"), Progress(stream).step("bridge"):
        raise ValueError("no")

    assert stream.getvalue() == "failed: bridge\n"


def test_tables_have_columns_three_spaces_apart():
    assert build_table(("A", "B"), [("long", "x")]) == "A      B\nlong   x"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172800, "2d"), (-5, "0s")],
)
def test_ages_are_short(seconds, shown):
    now = datetime(2026, 5, 1, tzinfo=UTC)

    assert build_age(now - timedelta(seconds=seconds), now) == shown


def test_a_command_is_loaded_alone():
    program = """
import sys
from podyard.cli.main import run
run(["version"])
print(*(name for name in sys.modules if name.startswith("podyard.cli.commands.")))
"""

    named = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )

    assert named.stdout.splitlines()[-1] == "podyard.cli.commands.version"


def test_completion_tells_of_every_command(capsys):
    assert run(["completion", "bash"]) == 0

    script = capsys.readouterr().out
    assert all(part.name in script for part in load_parts(commands, Command))
