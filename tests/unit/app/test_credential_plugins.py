"""Settings of credential plugins and of verification, as people write them."""

import pytest

from podyard.app.config import ConfigError, load_config
from podyard.app.credentials import load_plugins, source_context, token_audiences

SECRET = "canary-value"
PROVIDERS = """\
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: {name}
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example.com"]
  defaultCacheDuration: 1m
  env: [{{name: KEY, value: {secret}}}]
  tokenAttributes:
    serviceAccountTokenAudience: {name}-audience
    cacheType: ServiceAccount
    requireServiceAccount: false
"""


@pytest.fixture
def write(tmp_path):
    """Return what writes plugin files and gives the config that names them."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def make(*names, config="providers", text=PROVIDERS, executable=True):
        target = tmp_path / config
        if len(names) > 1:
            target.mkdir()
        for name in names:
            path = target / f"{name}.yaml" if len(names) > 1 else target
            path.write_text(text.format(name=name, secret=SECRET))
            (programs / name).write_text("")
            (programs / name).chmod(0o755 if executable else 0o644)
        file = tmp_path / "podyard.yaml"
        file.write_text(
            f"imageCredentialProviderConfigFile: {target}\n"
            f"imageCredentialProviderBinDir: {programs}\n"
        )
        return load_config({}, {}, file)

    return make


def test_without_the_settings_there_are_no_plugins():
    config = load_config({}, {})

    assert load_plugins(config) is None
    assert token_audiences(config) == frozenset()


def test_a_file_names_plugins(write, tmp_path):
    config = write("one")

    plugins = load_plugins(config)

    assert [provider.name for provider in plugins.providers] == ["one"]
    assert plugins.bin_dir == tmp_path / "bin"
    assert SECRET not in repr(plugins)


def test_a_directory_of_files_adds_up(write, tmp_path):
    config = write("two", "one")
    (tmp_path / "providers" / "notes.txt").write_text("no YAML: [")

    plugins = load_plugins(config)

    assert [provider.name for provider in plugins.providers] == ["one", "two"]
    assert token_audiences(config) == {"one-audience", "two-audience"}


async def test_sources_get_the_environment_without_showing_it(write, monkeypatch):
    monkeypatch.setenv("CLOUD_SECRET", SECRET)

    context = source_context(write("one"), objects=Nothing())

    assert context.environment["CLOUD_SECRET"] == SECRET
    assert SECRET not in repr(context)


class Nothing:
    async def get(self, kind, namespace, name):
        return None


def test_a_program_that_is_not_there_is_named(write):
    config = write("one", executable=False)

    with pytest.raises(ConfigError, match="bin/one"):
        load_plugins(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("x: [" + SECRET, "is not valid YAML or JSON", id="broken"),
        pytest.param(
            "kind: Other", "kind: must be CredentialProviderConfig", id="kind"
        ),
        pytest.param(
            PROVIDERS + "  color: red\n", 'unknown field "color"', id="unknown-field"
        ),
    ],
)
def test_a_bad_file_is_named_and_not_quoted(write, text, said):
    config = write("one", text=text)

    with pytest.raises(ConfigError, match=said) as caught:
        load_plugins(config)

    assert "providers" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "imageCredentialProviderBinDir: /bin",
            "imageCredentialProviderConfigFile and imageCredentialProviderBinDir",
        ),
        (
            (
                "imageCredentialProviderBinDir: /absent\n"
                "imageCredentialProviderConfigFile: /absent"
            ),
            "plugin binary directory /absent did not exist",
        ),
        (
            (
                "imageCredentialProviderBinDir: /bin\n"
                "imageCredentialProviderConfigFile: /absent"
            ),
            "/absent: No such file or directory",
        ),
    ],
)
def test_what_goes_together_is_told(tmp_path, text, said):
    file = tmp_path / "podyard.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said):
        load_plugins(load_config({}, {}, file))


def test_an_empty_directory_is_no_configuration(tmp_path):
    file = tmp_path / "podyard.yaml"
    (tmp_path / "empty").mkdir()
    file.write_text(
        "imageCredentialProviderBinDir: /bin\n"
        f"imageCredentialProviderConfigFile: {tmp_path}/empty\n"
    )

    with pytest.raises(ConfigError, match="no configuration files found in directory"):
        load_plugins(load_config({}, {}, file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imagePullCredentialsVerificationPolicy: Sometimes", "must be one of"),
        ("preloadedImagesVerificationAllowlist: [a]", "NeverVerifyAllowlistedImages"),
        (
            (
                "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n"
                "preloadedImagesVerificationAllowlist: ['*']"
            ),
            "must be an image name",
        ),
        ("registryPullQPS: -1", "must be between"),
        ("registryBurst: 0", "must be between"),
    ],
)
def test_bad_settings_of_pulls_are_named(tmp_path, text, said):
    file = tmp_path / "podyard.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said):
        load_config({}, {}, file)
