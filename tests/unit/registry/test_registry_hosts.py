"""Registry settings: how they are read, whom they have us ask, containerd's form."""

import tomllib

import pytest

from podyard.registry.hosts import (
    Endpoint,
    HostsError,
    Registry,
    build_hosts_toml,
    endpoints,
    find_registry,
    hosts_files,
    own_server,
    parse_hosts_toml,
    parse_registries,
)


def asked(host: str, *settings: dict[str, object]) -> list[str]:
    registries = parse_registries(settings)
    return [endpoint.base for endpoint in endpoints(find_registry(host, registries))]


def test_a_registry_nobody_configured_is_asked_over_tls() -> None:
    assert asked("reg.example.com") == ["https://reg.example.com/v2"]


def test_docker_hub_has_an_address_of_its_own() -> None:
    assert asked("docker.io") == ["https://registry-1.docker.io/v2"]


@pytest.mark.parametrize(
    "host", ["localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"]
)
def test_loopback_is_asked_in_plain_http(host: str) -> None:
    assert asked(host) == [f"http://{host}/v2"]


def test_a_private_authority_means_tls_on_loopback_too() -> None:
    host = "127.0.0.1:5000"

    assert asked(host, {"host": host, "ca": "/ca.pem"}) == [f"https://{host}/v2"]


def test_insecure_means_unverified_tls_and_then_plain_http() -> None:
    (registry,) = parse_registries([{"host": "r:5000", "insecure": True}])

    assert endpoints(registry) == (
        Endpoint("https://r:5000", insecure=True),
        Endpoint("http://r:5000", insecure=True),
    )


def test_a_server_given_with_its_scheme_is_the_only_one() -> None:
    settings: dict[str, object] = {
        "host": "r",
        "insecure": True,
        "server": "http://10.0.0.1:5000",
    }

    assert asked("r", settings) == ["http://10.0.0.1:5000/v2"]


def test_mirrors_come_first_in_their_order() -> None:
    settings: dict[str, object] = {
        "host": "docker.io",
        "mirrors": ["mirror.gcr.io", {"url": "http://10.0.0.1:5000/hub"}],
    }

    assert asked("docker.io", settings) == [
        "https://mirror.gcr.io/v2",
        "http://10.0.0.1:5000/hub/v2",
        "https://registry-1.docker.io/v2",
    ]


def test_a_complete_path_stays_as_it_is() -> None:
    mirror = {"url": "https://m/v2/proxy", "override-path": True}

    assert asked("r", {"host": "r", "mirrors": [mirror]})[0] == "https://m/v2/proxy"


def test_the_default_counts_for_those_without_settings() -> None:
    default: dict[str, object] = {"host": "_default", "mirrors": ["https://m"]}
    own: dict[str, object] = {"host": "r"}

    assert asked("x", default, own) == ["https://m/v2", "https://x/v2"]
    assert asked("r", default, own) == ["https://r/v2"]


def test_every_name_of_docker_hub_is_the_same_registry() -> None:
    (registry,) = parse_registries([{"host": "index.docker.io"}])

    assert registry.host == "docker.io"


def test_credentials_belong_to_the_registrys_own_address() -> None:
    registries = parse_registries(
        [
            {"host": "docker.io", "mirrors": ["https://m"]},
            {"host": "r", "insecure": True},
        ]
    )

    assert own_server("docker.io", registries) == "https://registry-1.docker.io"
    assert own_server("r", registries) == "https://r"
    assert own_server("localhost:5000", registries) == "http://localhost:5000"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"registries\[0\].host: must be a string"),
        ({"host": "https://r"}, "is no registry as image names have it"),
        ({"host": "r/path"}, "is no registry"),
        ({"host": "../r"}, "is no registry"),
        (
            {"host": "r", "mirror": []},
            'unknown key "mirror"; known keys: host, mirrors',
        ),
        ({"host": "r", "mirrors": "m"}, r"\(r\).mirrors: must be a list"),
        ({"host": "r", "mirrors": [1]}, r"mirrors\[0\]: must be a URL"),
        ({"host": "r", "mirrors": ["ftp://m"]}, "absolute http or https URL"),
        ({"host": "r", "mirrors": ["https://u:p@m"]}, "carries a user name"),
        ({"host": "r", "mirrors": ["https://m?x=1"]}, "must not have a query"),
        ({"host": "r", "mirrors": [{"url": "m", "x": 1}]}, 'unknown key "x"'),
        ({"host": "r", "insecure": "yes"}, "insecure: must be true or false"),
        ({"host": "r", "ca": "ca.pem"}, "must be an absolute path"),
        ({"host": "r", "ca": 1}, "must be a string or a list"),
        ({"host": "_default", "server": "https://r"}, "stands for many"),
        ({"host": "_default", "insecure": True}, "takes mirrors only"),
    ],
)
def test_wrong_settings_are_told_with_their_place(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(HostsError, match=says):
        parse_registries([settings])


def test_a_registry_given_twice_is_told() -> None:
    with pytest.raises(HostsError, match="twice"):
        parse_registries([{"host": "docker.io"}, {"host": "index.docker.io"}])


def test_hosts_toml_asks_mirrors_and_then_the_registry() -> None:
    (registry,) = parse_registries(
        [
            {
                "host": "docker.io",
                "mirrors": ["https://m1", {"url": "http://m2", "resolve": False}],
                "ca": ["/ca.pem"],
            }
        ]
    )

    document = tomllib.loads(build_hosts_toml(registry))

    assert list(document["host"]) == ["https://m1", "http://m2"]
    assert document["host"]["http://m2"] == {"capabilities": ["pull"]}
    assert document["server"] == "https://registry-1.docker.io"
    assert document["ca"] == ["/ca.pem"]
    assert document["capabilities"] == ["pull", "resolve"]


def test_hosts_toml_of_an_insecure_registry_ends_with_plain_http() -> None:
    (registry,) = parse_registries([{"host": "r:5000", "insecure": True}])

    document = tomllib.loads(build_hosts_toml(registry))

    assert document["host"]["https://r:5000"]["skip_verify"] is True
    assert document["server"] == "http://r:5000"


def test_hosts_toml_of_the_default_names_no_server() -> None:
    (registry,) = parse_registries([{"host": "_default", "mirrors": ["https://m"]}])

    document = tomllib.loads(build_hosts_toml(registry))

    assert "server" not in document
    assert list(document["host"]) == ["https://m"]


def test_hosts_toml_always_has_a_table() -> None:
    (registry,) = parse_registries([{"host": "127.0.0.1:5000", "ca": "/ca.pem"}])

    document = tomllib.loads(build_hosts_toml(registry))

    assert document["host"]["https://127.0.0.1:5000"]["ca"] == ["/ca.pem"]
    assert document["server"] == "https://127.0.0.1:5000"


def test_a_hosts_directory_has_one_directory_a_registry() -> None:
    registries = parse_registries([{"host": "a:5000"}, {"host": "_default"}])

    assert list(hosts_files(registries)) == ["a:5000/hosts.toml", "_default/hosts.toml"]


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "r"},
        {"host": "r", "mirrors": ["https://m", "http://n/path"]},
        {"host": "r", "ca": ["/a.pem", "/b.pem"]},
        {"host": "127.0.0.1:5000", "ca": "/a.pem"},
        {
            "host": "docker.io",
            "mirrors": [{"url": "https://m/v2", "override-path": True}],
        },
        {"host": "r:5000", "insecure": True},
    ],
    ids=["plain", "mirrors", "ca", "loopback", "path", "insecure"],
)
def test_what_is_written_is_read_back_with_the_same_servers(
    settings: dict[str, object],
) -> None:
    (registry,) = parse_registries([settings])

    text = build_hosts_toml(registry)
    back = parse_hosts_toml(text, host=registry.host, directory="/hosts")

    bases = [endpoint.base for endpoint in endpoints(registry)]
    assert [endpoint.base for endpoint in endpoints(back)] == bases
    mirrors = [endpoint.mirror for endpoint in endpoints(registry)]
    assert [endpoint.mirror for endpoint in endpoints(back)] == mirrors


def test_relative_authorities_stand_beside_the_file() -> None:
    found = parse_hosts_toml('ca = "ca.crt"', host="r", directory="/d/r")

    assert found == Registry("r", ca=("/d/r/ca.crt",))


@pytest.mark.parametrize(
    "text",
    ["=", 'host = "x"', '[host]\n"https://m" = 1', '[host."ftp://m"]', "ca = 1"],
    ids=["no-toml", "host-no-table", "entry-no-table", "no-url", "odd-ca"],
)
def test_a_bad_hosts_toml_is_told_with_its_name(text: str) -> None:
    with pytest.raises(HostsError, match=r"/d/r/hosts\.toml"):
        parse_hosts_toml(text, host="r", directory="/d/r")
