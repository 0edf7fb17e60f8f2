"""``podyard image`` and ``podyard registry`` with a real containerd and registry."""

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podyard.app.registries import write_hosts
from podyard.containerd.own_images import (
    ImageSpec,
    RootfsFile,
    build_archive,
    write_archive,
)
from podyard.registry.hosts import parse_registries
from podyard.testing.fake_registry import (
    BasicAuth,
    FakeRegistry,
    Kind,
    On,
    TokenAuth,
)
from support.certificates import make_authority, make_leaf
from support.containerd import (
    RunningContainerd,
    connect_to,
    container_config,
    running_containerd,
    sandbox_config,
)
from support.registry import (
    Server,
    needs_registry,
    pusher,
    real_registry,
    small_image,
)
from support.terminal import running

pytestmark = [pytest.mark.integration, needs_registry]

PASSWORD = "tr0ub4dor&3"
USERS = {"ada": PASSWORD}


@pytest.fixture(scope="module")
def containerd(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningContainerd]:
    with running_containerd(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real_registry(tmp_path_factory.mktemp("registry"), users=USERS) as server:
        yield server


class Cli:
    """Runs ``podyard`` as a person would; the home and root dir are the test's."""

    def __init__(self, running: RunningContainerd | None, directory: Path) -> None:
        self._name = running.row.name if running else "nobody"
        self.root_dir = directory / "root"
        self.directory = directory
        self.config = directory / "config.yaml"
        self.config.write_text("{}\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path("src").absolute()),
            "HOME": str(self.directory),
        }

    def command(self, *words: str) -> list[str]:
        command, action, *rest = words
        places = ["--name", self._name, "--root-dir", str(self.root_dir)]
        places += ["--config", str(self.config)]
        return [sys.executable, "-m", "podyard", command, action, *places, *rest]

    def run(
        self, *words: str, stdin: bytes = b"", code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            timeout=60,
            cwd=self.directory,
            env=self.environment,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert PASSWORD.encode() not in done.stdout + done.stderr
        return done

    def text(self, *words: str, stdin: bytes = b"", code: int = 0) -> str:
        done = self.run(*words, stdin=stdin, code=code)
        return (done.stdout or done.stderr).decode()

    def data(self, *words: str, code: int = 0) -> object:
        return json.loads(self.run(*words, "-o", "json", code=code).stdout)

    def log_in(self, server: Server, *, password: str = PASSWORD, code: int = 0) -> str:
        words = ("registry", "login", server.host, "-u", "ada", "--password-stdin")
        return self.text(*words, stdin=f"{password}\n".encode(), code=code)


@pytest.fixture
def cli(containerd: RunningContainerd, tmp_path: Path) -> Cli:
    return Cli(containerd, tmp_path)


@pytest.fixture
def apart(tmp_path: Path) -> Cli:
    """Where no Podyard runs."""
    return Cli(None, tmp_path)


# -- registry login, logout, ls


def test_login_checks_and_keeps_the_password_for_the_node(
    apart: Cli, registry: Server
) -> None:
    said = apart.log_in(registry)

    file = apart.root_dir / "config.json"
    assert said == f"logged in to {registry.host} as ada; kept in {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(file.read_text())["auths"]) == [registry.host]


def test_login_with_a_wrong_password_keeps_nothing(
    apart: Cli, registry: Server
) -> None:
    said = apart.log_in(registry, password="wrong", code=1)

    assert "refused the credentials (401)" in said
    assert not (apart.root_dir / "config.json").exists()


def test_login_never_takes_a_password_as_argument(apart: Cli, registry: Server) -> None:
    said = apart.text("registry", "login", registry.host, "-u", "ada", code=2)

    assert "--password-stdin" in said


def test_login_keeps_what_else_is_in_the_file(apart: Cli, registry: Server) -> None:
    apart.root_dir.mkdir()
    file = apart.root_dir / "config.json"
    before = {
        "auths": {"other.example.com": {"auth": "YTpi"}},
        "HttpHeaders": {"X": "y"},
    }
    file.write_text(json.dumps(before))

    apart.log_in(registry)
    apart.text("registry", "logout", registry.host)

    assert json.loads(file.read_text()) == before


def test_login_does_not_overwrite_a_file_it_cannot_read(
    apart: Cli, registry: Server
) -> None:
    apart.root_dir.mkdir()
    (apart.root_dir / "config.json").write_text("{not json")

    assert "not valid JSON" in apart.log_in(registry, code=1)
    assert (apart.root_dir / "config.json").read_text() == "{not json"


def test_logout_of_nothing_says_so(apart: Cli) -> None:
    said = apart.text("registry", "logout", "docker.io", code=1)

    assert "no credentials for docker.io" in said


def test_ls_says_which_file_counts(apart: Cli, registry: Server) -> None:
    apart.log_in(registry)
    shadowed = apart.directory / ".docker" / "config.json"
    shadowed.parent.mkdir()
    shadowed.write_text('{"auths":{"quay.io":{"auth":"YTpi"}},"credsStore":"pass"}')
    (apart.directory / ".dockercfg").write_text("broken")

    done = apart.run("registry", "ls")

    lines = [line.split() for line in done.stdout.decode().splitlines()]
    own = str(apart.root_dir / "config.json")
    assert [registry.host, "ada", "password", own, "used"] in lines
    assert ["quay.io", "a", "password", str(shadowed), "not", "used:"] == lines[2][:6]
    assert b"credential helpers, which are asked: pass" in done.stderr
    assert b".dockercfg is left out" in done.stderr


@pytest.mark.parametrize("name", ["https://", "a/b", "UPPER CASE", ""])
def test_what_is_no_registry_is_told(apart: Cli, name: str) -> None:
    words = ("registry", "login", name, "-u", "a", "--password-stdin")

    assert "is no registry" in apart.text(*words, stdin=b"x", code=1)


# -- registry test


async def test_a_rehearsal_shows_the_way_to_a_private_image(
    apart: Cli, registry: Server
) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("team/app", "v1", small_image("app:v1"))
    apart.log_in(registry)

    found = apart.data("registry", "test", pushed.name)

    assert isinstance(found, dict)
    assert found["works"] is True
    assert found["digest"] == pushed.digest
    (candidate,) = found["candidates"]
    assert candidate["outcome"] == "accepted"
    assert candidate["why"] == "host, port and path fit"
    assert candidate["source"] == f'node file "{apart.root_dir}/config.json"'
    assert [(e["method"], e["sent"], e["status"]) for e in candidate["exchanges"]] == [
        ("GET", "nothing", 401),
        ("GET", "basic", 200),
    ]


async def test_a_rehearsal_says_why_nothing_fits(apart: Cli, registry: Server) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("team/app", "v1", small_image("app:v1"))
    apart.root_dir.mkdir()
    entry = {"auth": "YWRhOng="}
    keys = ["127.0.0.1", f"{registry.host}/other", "quay.io"]
    auths = {"auths": dict.fromkeys(keys, entry)}
    (apart.root_dir / "config.json").write_text(json.dumps(auths))

    said = apart.run("registry", "test", pushed.name, code=1).stdout.decode()

    port = registry.host.partition(":")[2]
    assert f"the port differs: the key has none, the image {port}" in said
    assert 'the path "/other" is no beginning of "/team/app"' in said
    assert "1 more credential is for other registries" in said
    assert "a pull fails" in said
    assert "wants credentials, and there are none (401)" in said


async def test_a_rehearsal_lists_the_platforms(apart: Cli, registry: Server) -> None:
    images = {
        arch: small_image("a:v1", architecture=arch) for arch in ("s390x", "riscv64")
    }
    async with pusher(registry) as push:
        pushed = await push.index("multi", "v1", images)
    apart.log_in(registry)

    said = apart.run("registry", "test", pushed.name, code=1).stdout.decode()

    assert "on offer: linux/s390x, linux/riscv64" in said
    assert "fits this node (linux/" in said


def test_a_rehearsal_of_a_bad_name_says_what_is_wrong(apart: Cli) -> None:
    said = apart.text("registry", "test", "a//b", code=1)

    assert "couldn't parse image name" in said


def test_a_rehearsal_for_a_namespace_needs_a_running_podyard(apart: Cli) -> None:
    apart.config.write_text(f"data-dir: {apart.directory}/data\n")

    said = apart.text("registry", "test", "localhost:1/x", "-n", "default", code=1)

    assert "podyard up" in said


# -- image


def test_without_podyard_there_are_no_images_and_exit_code_3(apart: Cli) -> None:
    said = apart.text("image", "ls", code=3)

    assert 'instance "nobody" is not running' in said


async def test_pull_takes_the_nodes_credentials(cli: Cli, registry: Server) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("pulled", "v1", small_image("pulled:v1"))

    refused = cli.text("image", "pull", pushed.name, code=1)
    cli.log_in(registry)
    pulled = cli.text("image", "pull", pushed.name)

    assert "with no credentials" in refused
    assert f"podyard registry test {pushed.name}" in refused
    assert pulled.startswith(f"{pushed.name} sha256:")
    assert f'key "{registry.host}"' in pulled
    listed = cli.data("image", "ls")
    assert isinstance(listed, list)
    assert pushed.name in [tag for image in listed for tag in image["repoTags"]]


async def test_a_terminal_sees_the_progress_and_then_the_result(
    cli: Cli, registry: Server
) -> None:
    content = os.urandom(40_000_000)
    async with pusher(registry) as push:
        archive = small_image("large:v1", content=content)
        pushed = await push.image("large", "v1", archive)
    cli.log_in(registry)

    command = cli.command("image", "pull", pushed.name)
    with running(command, cli.environment, tty=True) as pull:
        code = pull.wait()

    said = pull.said.decode()
    assert code == 0
    assert f"pulling {pushed.name} [" in said
    assert "/40MB" in said
    assert said.rpartition("\x1b[K")[2].startswith(f"{pushed.name} sha256:")


async def test_a_login_at_a_terminal_asks_and_does_not_echo(
    apart: Cli, registry: Server
) -> None:
    command = apart.command("registry", "login", registry.host)
    with running(command, apart.environment, tty=True) as login:
        login.until("Username: ")
        login.type("ada\n")
        login.until("Password: ")
        login.type(f"{PASSWORD}\n")
        code = login.wait()

    assert code == 0
    assert "logged in" in login.said.decode()
    assert PASSWORD not in login.said.decode()


async def test_a_wrong_password_is_followed_by_the_next(
    cli: Cli, registry: Server
) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("two/keys", "v1", small_image("keys:v1"))
    cli.log_in(registry)
    file = cli.root_dir / "config.json"
    document = json.loads(file.read_text())
    document["auths"][f"{registry.host}/two"] = {"username": "ada", "password": "old"}
    file.write_text(json.dumps(document))

    pulled = cli.text("image", "pull", pushed.name)

    assert f'key "{registry.host}"' in pulled


async def test_a_registry_with_a_private_authority_needs_only_the_config(
    cli: Cli, containerd: RunningContainerd, tmp_path: Path
) -> None:
    authority = make_authority()
    (tmp_path / "ca.pem").write_text(authority.cert)
    leaf = make_leaf(authority, "registry", "127.0.0.1")
    with real_registry(
        tmp_path / "tls", users=USERS, authority=authority, leaf=leaf
    ) as server:
        async with pusher(server) as push:
            pushed = await push.image("app", "v1", small_image("tls:v1"))
        settings: list[dict[str, object]] = [
            {"host": server.host, "ca": str(tmp_path / "ca.pem")}
        ]
        cli.config.write_text(json.dumps({"registries": settings}))
        hosts = Path(containerd.runtime.containerd.config.registry_dir)
        write_hosts(hosts, parse_registries(settings))

        cli.log_in(server)
        pulled = cli.text("image", "pull", pushed.name)

        assert pulled.startswith(pushed.name)
        write_hosts(hosts, ())
        assert list(hosts.iterdir()) == []


async def test_a_mirror_serves_what_the_registry_does_not(
    cli: Cli, containerd: RunningContainerd, tmp_path: Path
) -> None:
    with real_registry(tmp_path / "mirror") as mirror:
        async with pusher(mirror) as push:
            await push.image("library/mirrored", "v1", small_image("m:v1"))
        settings: list[dict[str, object]] = [
            {"host": "registry.invalid", "mirrors": [mirror.url]}
        ]
        cli.config.write_text(json.dumps({"registries": settings}))
        hosts = Path(containerd.runtime.containerd.config.registry_dir)
        write_hosts(hosts, parse_registries(settings))

        name = "registry.invalid/library/mirrored:v1"
        assert cli.text("image", "pull", name).startswith(name)
        found = cli.data("registry", "test", name)
        assert isinstance(found, dict)
        assert found["server"] == mirror.url
        write_hosts(hosts, ())


async def test_a_foreign_token_realm_gets_nothing_and_is_named(cli: Cli) -> None:
    async with FakeRegistry() as registry, FakeRegistry(auth=TokenAuth(USERS)) as thief:
        port = thief.host.partition(":")[2]
        realm = f"http://evil.localhost.invalid:{port}/token"
        registry.fault(On.ANY, Kind.REALM, location=realm)
        cli.root_dir.mkdir()
        entry = {"username": "ada", "password": PASSWORD}
        auths = {"auths": {registry.host: entry}}
        (cli.root_dir / "config.json").write_text(json.dumps(auths))

        said = await asyncio.to_thread(
            cli.text, "image", "pull", f"{registry.host}/app:v1", code=1
        )

        assert f'names the token realm "{realm}"' in said
        assert not any(registry.credentials_seen() + thief.credentials_seen())


async def test_a_mirror_never_sees_the_registrys_password(
    cli: Cli, containerd: RunningContainerd, registry: Server
) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("mirrored", "v1", small_image("mirrored:v1"))
    async with FakeRegistry(auth=BasicAuth({})) as mirror:
        settings: list[dict[str, object]] = [
            {"host": registry.host, "mirrors": [mirror.url]}
        ]
        hosts = Path(containerd.runtime.containerd.config.registry_dir)
        write_hosts(hosts, parse_registries(settings))
        cli.config.write_text(json.dumps({"registries": settings}))
        await asyncio.to_thread(cli.log_in, registry)

        pulled = await asyncio.to_thread(cli.text, "image", "pull", pushed.name)

        assert pulled.startswith(pushed.name)
        assert mirror.seen
        assert not any(mirror.credentials_seen())
        write_hosts(hosts, ())


async def test_an_insecure_registry_is_pulled_from_without_tls(
    cli: Cli, containerd: RunningContainerd, registry: Server
) -> None:
    async with pusher(registry) as push:
        pushed = await push.image("insecure", "v1", small_image("insecure:v1"))
    settings: list[dict[str, object]] = [{"host": registry.host, "insecure": True}]
    hosts = Path(containerd.runtime.containerd.config.registry_dir)
    write_hosts(hosts, parse_registries(settings))
    cli.config.write_text(json.dumps({"registries": settings}))
    cli.log_in(registry)

    assert cli.text("image", "pull", pushed.name).startswith(pushed.name)
    write_hosts(hosts, ())


def make_file(name: str, path: Path, content: bytes = b"x") -> Path:
    spec = ImageSpec(name, {"file": RootfsFile(0o644, content)}, {"Cmd": ["/file"]})
    write_archive(build_archive(spec), path)
    return path


def test_load_brings_in_a_file_or_what_a_pipe_gives(cli: Cli, tmp_path: Path) -> None:
    one = make_file("example.com/one:v1", tmp_path / "one.tar")
    two = make_file("example.com/two:v1", tmp_path / "two.tar", b"two")

    assert cli.text("image", "load", str(one)) == "loaded example.com/one:v1\n"
    said = cli.text("image", "load", stdin=two.read_bytes())
    assert said == "loaded example.com/two:v1\n"


def test_load_of_something_else_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"not an archive at all" * 100)

    assert "not a tar archive" in cli.text(
        "image", "load", str(tmp_path / "no.tar"), code=1
    )
    assert "No such file" in cli.text("image", "load", str(tmp_path / "x"), code=1)


def test_what_was_saved_can_be_loaded_again(cli: Cli, tmp_path: Path) -> None:
    name = "example.com/saved:v1"
    cli.text("image", "load", str(make_file(name, tmp_path / "a.tar", b"saved")))
    (before,) = json.loads(cli.run("image", "inspect", name).stdout)

    cli.text("image", "save", name, "-o", str(tmp_path / "saved.tar"))
    piped = cli.run("image", "save", name).stdout
    cli.text("image", "rm", name)
    cli.text("image", "inspect", name, code=1)
    cli.text("image", "load", str(tmp_path / "saved.tar"))

    assert (tmp_path / "saved.tar").read_bytes() == piped
    (after,) = json.loads(cli.run("image", "inspect", name).stdout)
    assert after == before
    with tarfile.open(fileobj=io.BytesIO(piped)) as tar:
        assert {"oci-layout", "index.json", "manifest.json"} <= set(tar.getnames())


async def test_a_pulled_index_keeps_its_digest_through_save_and_load(
    cli: Cli, registry: Server, tmp_path: Path
) -> None:
    from podyard.containerd.archives import architecture

    images = {
        arch: small_image("idx:v1", architecture=arch)
        for arch in (architecture(), "s390x")
    }
    async with pusher(registry) as push:
        pushed = await push.index("idx", "v1", images)
    cli.log_in(registry)
    cli.text("image", "pull", pushed.name)

    cli.text("image", "save", pushed.name, "-o", str(tmp_path / "i.tar"))
    cli.text("image", "rm", pushed.name)
    cli.text("image", "load", str(tmp_path / "i.tar"))

    (document,) = json.loads(cli.run("image", "inspect", pushed.name).stdout)
    assert document["target"]["digest"] == pushed.digest
    assert {p["platform"]: p["present"] for p in document["platforms"]} == {
        f"linux/{architecture()}": True,
        "linux/s390x": False,
    }
    assert document["config"]["config"]["Cmd"] == ["/hello.txt"]


def test_inspect_tells_config_and_platforms(cli: Cli, tmp_path: Path) -> None:
    name = "example.com/looked:v1"
    cli.text("image", "load", str(make_file(name, tmp_path / "a.tar", b"looked")))

    (document,) = json.loads(cli.run("image", "inspect", name).stdout)

    assert document["repoTags"] == [name]
    assert document["config"]["config"] == {"Cmd": ["/file"]}
    (platform,) = document["platforms"]
    assert platform["present"]
    assert platform["chosen"]
    assert len(document["layers"]) == 1


def test_one_name_of_several_is_only_taken_away(cli: Cli, tmp_path: Path) -> None:
    for name in ("example.com/first:v1", "example.com/second:v1"):
        cli.text("image", "load", str(make_file(name, tmp_path / "a.tar", b"same")))

    said = cli.text("image", "rm", "example.com/first:v1")

    assert said.startswith("untagged example.com/first:v1")
    cli.text("image", "inspect", "example.com/second:v1")


async def test_an_image_in_use_is_not_removed(
    cli: Cli, containerd: RunningContainerd, tmp_path: Path
) -> None:
    from support.containerd import BUSYBOX

    async with connect_to(containerd.runtime) as services:
        sandbox = sandbox_config(containerd.row, name="user")
        sandbox_id = await services.runtime.run_pod_sandbox(sandbox, "")
        try:
            await services.runtime.create_container(
                sandbox_id, container_config(sandbox), sandbox
            )

            said = cli.text("image", "rm", BUSYBOX, code=1)

            assert "is in use by container tests/user/main (--force removes it)" in said
        finally:
            await services.runtime.stop_pod_sandbox(sandbox_id)
            await services.runtime.remove_pod_sandbox(sandbox_id)


def test_the_sandbox_image_is_pinned(cli: Cli, containerd: RunningContainerd) -> None:
    name = containerd.runtime.sandbox_image.name

    assert "is pinned" in cli.text("image", "rm", name, code=1)


def test_an_absent_image_is_told(cli: Cli) -> None:
    for action in ("rm", "inspect"):
        said = cli.text("image", action, "example.com/absent:v1", code=1)
        assert "example.com/absent:v1: no such image on this node" in said
    cli.text("image", "save", "example.com/absent:v1", code=1)


def test_ls_prints_a_table_and_ids(cli: Cli, tmp_path: Path) -> None:
    cli.text("image", "load", str(make_file("example.com/t:v1", tmp_path / "t.tar")))

    table = cli.text("image", "ls")
    ids = cli.text("image", "ls", "-q").split()

    assert table.splitlines()[0].split() == ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]
    (row,) = [line.split() for line in table.splitlines() if "example.com/t " in line]
    assert row[1] == "v1"
    assert any(one.startswith(f"sha256:{row[2]}") for one in ids)


def test_a_foreign_endpoint_is_asked_instead(
    apart: Cli, containerd: RunningContainerd
) -> None:
    said = apart.text("image", "ls", "--runtime-endpoint", containerd.endpoint)

    assert "podyard.local/sandbox" in said
    nowhere = "unix:///nonexistent.sock"
    assert "there is no runtime at" in apart.text(
        "image", "ls", "--runtime-endpoint", nowhere, code=3
    )
