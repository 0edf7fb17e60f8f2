"""Names, labels, keys and ports: accepted, or refused with upstream's texts."""

from typing import Any

import pytest

from podyard.api import syntax
from podyard.api.names import ALPHABET, generate_name, name_suffix

LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
    "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
    "'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    "characters, '-' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize(
    ("check", "value", "faults"),
    [
        (syntax.check_dns1123_label, "my-name", []),
        (syntax.check_dns1123_label, "a.b", ["must not contain dots"]),
        (syntax.check_dns1123_label, "My", [LABEL_RULE]),
        (syntax.check_dns1123_label, "a\n", [LABEL_RULE]),
        (
            syntax.check_dns1123_label,
            "a" * 64,
            ["must be no more than 63 characters"],
        ),
        (syntax.check_dns1123_subdomain_underscore, "_sip._tcp.a", []),
        (syntax.check_dns1123_subdomain_underscore, "-a", None),
        (syntax.check_dns1035_label, "abc", []),
        (syntax.check_dns1035_label, "1abc", None),
        (syntax.check_wildcard_subdomain, "*.a.b", []),
        (syntax.check_wildcard_subdomain, "a.b", None),
        (
            syntax.check_fqdn,
            "a",
            ["should be a domain with at least two segments separated by dots"],
        ),
        (syntax.check_fqdn, "A.b", None),
        (syntax.check_http_header, "X-A", []),
        (syntax.check_http_header, "X A", None),
        (syntax.check_c_identifier, "a_1", []),
        (syntax.check_c_identifier, "1a", None),
        (syntax.check_condition_reason, "MyReason", []),
        (syntax.check_condition_reason, "1", None),
        (
            syntax.check_qualified_name,
            "a" * 64,
            ["name part must be no more than 63 bytes"],
        ),
        (syntax.check_config_key, ".", ["must not be '.'"]),
        (syntax.check_user_id, 0, []),
        (syntax.check_dns1123_subdomain, "a.b-c.d", []),
        (syntax.check_dns1123_subdomain, "../etc", [SUBDOMAIN_RULE]),
        (
            syntax.check_dns1123_subdomain,
            "a" * 254,
            ["must be no more than 253 characters"],
        ),
        (syntax.check_qualified_name, "example.com/MyName", []),
        (syntax.check_qualified_name, "a/", None),
        (syntax.check_qualified_name, "a/b/c", None),
        (syntax.check_label_value, "", []),
        (syntax.check_label_value, "-a", None),
        (syntax.check_port_name, "http", []),
        (
            syntax.check_port_name,
            "80",
            ["must contain at least one letter (a-z)"],
        ),
        (
            syntax.check_port_name,
            "a--b-",
            [
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen",
            ],
        ),
        (syntax.check_env_name, "1 odd.name!", []),
        (syntax.check_env_name, "", ["environment variable name must be non-empty"]),
        (
            syntax.check_env_name,
            "A=B",
            [
                (
                    "a valid environment variable name must consist only of printable "
                    "ASCII characters other than '='"
                )
            ],
        ),
        (syntax.check_config_key, "a.b_c-d", []),
        (syntax.check_config_key, "..", ["must not be '..'"]),
        (syntax.check_config_key, "..data", ["must not start with '..'"]),
        (syntax.check_config_key, "a/b", None),
        (syntax.check_port_number, 0, ["must be between 1 and 65535, inclusive"]),
        (syntax.check_ip, "10.0.0.1", []),
        (syntax.check_ip, "010.0.0.1", None),
        (syntax.check_ip, "fe80::1%eth0", None),
        (syntax.check_percent, "25%", []),
        (syntax.check_percent, "25", None),
        (syntax.check_cidr, "10.0.0.0/8", []),
        (syntax.check_cidr, "10.0.0.0", None),
        (syntax.check_fqdn, "a.example.", []),
        (syntax.check_path_segment, "..", ["may not be '..'"]),
        (
            syntax.check_path_segment,
            "a/b%c",
            ["may not contain '/'", "may not contain '%'"],
        ),
    ],
)
def test_a_value_is_checked(check: Any, value: Any, faults: Any) -> None:
    found = check(value)

    if faults is None:
        assert found
    else:
        assert found == faults


def test_a_generated_name_fits_a_dns_label() -> None:
    name = generate_name("x" * 80 + "-", bytes(range(5)))

    assert len(name) == 63
    assert not syntax.check_dns1123_label(name)


def test_a_suffix_is_five_letters_without_vowels() -> None:
    assert name_suffix(bytes([0, 26, 27, 255, 1])) == "b9bqc"
    assert not set("aeiou013") & set(ALPHABET)


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="5 random bytes"):
        name_suffix(b"1234")


def test_a_rule_without_examples_names_its_expression_alone() -> None:
    assert syntax.regex_text("odd", "[a]") == "odd (regex used for validation is '[a]')"
