"""Kubeconfig files as people have them."""

import base64
import stat
from pathlib import Path

import pytest
import yaml

from podyard.client.connection import ApiConnection
from podyard.client.kubeconfig import (
    KubeconfigError,
    build_kubeconfig,
    load_kubeconfig,
    merge_kubeconfig,
    write_kubeconfig,
)

CA = "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n"
CERT = "-----BEGIN CERTIFICATE-----\nme\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"
OURS = ApiConnection(
    "https://127.0.0.1:6443", ca_pem=CA, client_cert_pem=CERT, client_key_pem=KEY
)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(user: str, cluster: str = "server: https://a:6443", more: str = "") -> str:
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {{{cluster}}}
users:
- name: u
  user: {{{user}}}
contexts:
- name: x
  context: {{cluster: c, user: u}}
- name: y
  context: {{cluster: c, user: u, namespace: team}}
{more or "current-context: x"}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            config("token: t0ken"),
            ApiConnection("https://a:6443", token="t0ken"),
            id="token",
        ),
        pytest.param(
            config(
                f"client-certificate-data: {b64(CERT)}, client-key-data: {b64(KEY)}"
            ),
            ApiConnection("https://a:6443", client_cert_pem=CERT, client_key_pem=KEY),
            id="embedded-certificate",
        ),
        pytest.param(
            config("client-certificate: me.crt, client-key: sub/me.key"),
            ApiConnection("https://a:6443", client_cert_pem=CERT, client_key_pem=KEY),
            id="certificate-files-beside-it",
        ),
        pytest.param(
            config("", f"server: https://a, certificate-authority-data: {b64(CA)}"),
            ApiConnection("https://a", ca_pem=CA),
            id="embedded-authority",
        ),
        pytest.param(
            config("", "server: https://a, certificate-authority: ca.crt"),
            ApiConnection("https://a", ca_pem=CA),
            id="authority-file",
        ),
        pytest.param(
            config(
                "",
                "server: https://a, insecure-skip-tls-verify: true, "
                "tls-server-name: n, proxy-url: http://p:1",
            ),
            ApiConnection(
                "https://a",
                insecure=True,
                tls_server_name="n",
                proxy_url="http://p:1",
            ),
            id="cluster-options",
        ),
    ],
)
def test_connection_is_read(tmp_path: Path, text: str, expected: ApiConnection) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "me.crt").write_text(CERT)
    (tmp_path / "sub" / "me.key").write_text(KEY)
    (tmp_path / "ca.crt").write_text(CA)
    file = tmp_path / "config"
    file.write_text(text)

    assert load_kubeconfig(file) == expected


def test_token_file_is_named_from_the_files_folder(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(config("tokenFile: var/token"))

    assert load_kubeconfig(file).token_file == tmp_path / "var" / "token"


def test_context_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(config("token: t"))

    assert load_kubeconfig(file, context="y").namespace == "team"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(None, "does not exist", id="missing-file"),
        pytest.param("a: [", "yaml", id="not-yaml"),
        pytest.param("- a", "no mapping", id="a-list"),
        pytest.param("", "no current-context", id="empty"),
        pytest.param("clusters: 3", "clusters is no list", id="not-a-list"),
        pytest.param("users: [{user: {}}]", "users[0] has no name", id="nameless"),
        pytest.param(
            "users: [{name: a, user: 3}]", "users[0].user is no mapping", id="odd-body"
        ),
        pytest.param("current-context: z", "no context named 'z'", id="no-context"),
        pytest.param(
            "current-context: z\ncontexts: [{name: z, context: {cluster: q}}]",
            "no cluster named 'q'",
            id="no-cluster",
        ),
        pytest.param(config("", "server: ''"), "has no server", id="no-server"),
        pytest.param(
            config("client-certificate: gone.crt"), "gone.crt", id="missing-certificate"
        ),
        pytest.param(
            config(f"client-certificate-data: {b64(CERT)}"), "its key", id="half-a-pair"
        ),
        pytest.param(
            config("client-key-data: AAA"), "client-key-data", id="broken-base64"
        ),
        pytest.param(config("exec: {command: aws}"), "'exec'", id="exec-plugin"),
        pytest.param(config("auth-provider: {name: gcp}"), "auth-provider", id="auth"),
        pytest.param(config("username: a, password: b"), "password", id="password"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)

    with pytest.raises(KubeconfigError) as told:
        load_kubeconfig(file)

    assert problem in str(told.value)
    assert str(file) in str(told.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(ApiConnection("https://a", token="t0ken", client_key_pem=KEY))

    assert "t0ken" not in shown
    assert "secret" not in shown


def test_what_is_written_is_read_back_and_private(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "config"

    write_kubeconfig(file, build_kubeconfig(OURS, name="podyard"))

    assert load_kubeconfig(file) == OURS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in file.parent.iterdir()] == ["config"]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Our own kubeconfig."""
    file = tmp_path / "admin.kubeconfig"
    write_kubeconfig(file, build_kubeconfig(OURS, name="podyard"))
    return file


THEIRS = """\
# my clusters
apiVersion: v1
kind: Config
preferences: {colors: true}  # I like colours
clusters:
# the big one
- cluster:
    server: https://big.example:6443
  name: big
contexts:
- context: {cluster: big, user: me}
  name: big
# after the contexts
current-context: big
users:
- name: me
  user:
    token: mine   # do not lose
"""


def test_merging_keeps_all_else_with_its_comments(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    file.chmod(0o640)

    merge_kubeconfig(ours, file)

    text = file.read_text()
    for line in THEIRS.splitlines():
        assert line in text or line.startswith("current-context")
    assert load_kubeconfig(file) == OURS
    assert load_kubeconfig(file, context="big").token == "mine"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert not file.with_name("config.lock").exists()


def test_merging_again_replaces_and_changes_nothing_else(
    tmp_path: Path, ours: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    merge_kubeconfig(ours, file)
    once = file.read_text()

    merge_kubeconfig(ours, file)
    assert file.read_text() == once

    moved = ApiConnection("https://127.0.0.1:7000", token="t")
    write_kubeconfig(ours, build_kubeconfig(moved, name="podyard"))
    merge_kubeconfig(ours, file)
    assert load_kubeconfig(file) == moved
    assert "# the big one" in file.read_text()


def test_current_context_can_be_left_alone(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)

    merge_kubeconfig(ours, file, make_current=False)

    assert load_kubeconfig(file).token == "mine"
    assert load_kubeconfig(file, context="podyard") == OURS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("# only a comment\n", id="comment"),
        pytest.param("apiVersion: v1\nclusters: []\nusers: null", id="empty-lists"),
        pytest.param('{"clusters": [], "contexts": []}', id="json"),
        pytest.param(
            "clusters:\n  - name: a\n    cluster: {server: 'https://a'}", id="indented"
        ),
        pytest.param(
            "users: &u\n- name: a\n  user: {}\nextra: {keep: [1, 2]}\n", id="anchor"
        ),
        pytest.param(
            "clusters:\n- name: a\n  cluster:\n    certificate-authority-data: |\n"
            "      QUFB\n    server: https://a\n",
            id="block-scalar",
        ),
        pytest.param("current-context: >-\n  folded\n  words\n", id="folded-current"),
    ],
)
def test_files_of_any_form_are_merged(tmp_path: Path, ours: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    before = yaml.safe_load(text) or {}

    merge_kubeconfig(ours, file)

    assert load_kubeconfig(file) == OURS
    after = yaml.safe_load(file.read_text())
    for kind in ("clusters", "users"):
        for entry in before.get(kind) or ():
            assert entry in after[kind]
    assert after.get("extra") == before.get("extra")


def test_a_missing_file_is_made_private(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / ".kube" / "config"

    merge_kubeconfig(ours, file)

    assert load_kubeconfig(file) == OURS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_link_stays_a_link(tmp_path: Path, ours: Path) -> None:
    real = tmp_path / "dotfiles" / "kubeconfig"
    real.parent.mkdir()
    real.write_text(THEIRS)
    link = tmp_path / "config"
    link.symlink_to(real)

    merge_kubeconfig(ours, link)

    assert link.is_symlink()
    assert load_kubeconfig(real) == OURS


def test_a_broken_file_is_left_alone(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / "config"
    file.write_text("clusters: [")

    with pytest.raises(KubeconfigError):
        merge_kubeconfig(ours, file)

    assert file.read_text() == "clusters: ["
    assert {f.name for f in tmp_path.iterdir()} == {"admin.kubeconfig", "config"}


def test_a_locked_file_is_left_alone(tmp_path: Path, ours: Path) -> None:
    file = tmp_path / "config"
    file.write_text(THEIRS)
    file.with_name("config.lock").touch()

    with pytest.raises(KubeconfigError, match=r"config\.lock"):
        merge_kubeconfig(ours, file)

    assert file.read_text() == THEIRS
