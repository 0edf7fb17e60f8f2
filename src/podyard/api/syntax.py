"""The syntax of names, labels, keys and ports, with upstream's texts.

Each ``check_…`` returns what is wrong with a value, nothing where all is well.

Source: apimachinery ``util/validation`` and ``api/validate/content`` (v1.36).
"""

import ipaddress
import re
from typing import Final

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_UNDERSCORE: Final = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORE: Final = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD: Final = rf"\*\.{_SUBDOMAIN}"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = f"({_QUALIFIED})?"
_PERCENT: Final = "[0-9]+%"
_HEADER: Final = "[-A-Za-z0-9]+"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_C_IDENTIFIER: Final = "[A-Za-z_][A-Za-z0-9_]*"
_CONDITION_REASON: Final = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"

_LABEL_RE = re.compile(_LABEL)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_SUBDOMAIN_UNDERSCORE_RE = re.compile(_SUBDOMAIN_UNDERSCORE)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_WILDCARD_RE = re.compile(_WILDCARD)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_LABEL_VALUE_RE = re.compile(_LABEL_VALUE)
_PERCENT_RE = re.compile(_PERCENT)
_HEADER_RE = re.compile(_HEADER)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)
_C_IDENTIFIER_RE = re.compile(_C_IDENTIFIER)
_CONDITION_REASON_RE = re.compile(_CONDITION_REASON)
_PORT_NAME_CHARS = re.compile("[-a-z0-9]+")
_LETTER = re.compile("[a-z]")

MAX_LABEL: Final = 63
MAX_SUBDOMAIN: Final = 253
MAX_INT32: Final = 2**31 - 1

_ALNUM = "must start and end with an alphanumeric character"
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters "
    f"or '-', and {_ALNUM}"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    f"characters, '-' or '.', and {_ALNUM}"
)
_SUBDOMAIN_UNDERSCORE_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    f"characters, '_', '-' or '.', and {_ALNUM}"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS "
    "subdomain, which must consist of lower case alphanumeric characters, '-' or '.' "
    "and end with an alphanumeric character"
)
_QUALIFIED_TEXT = (
    f"must consist of alphanumeric characters, '-', '_' or '.', and {_ALNUM}"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, "
    f"'-', '_' or '.', and {_ALNUM}"
)
_EXAMPLES_QUALIFIED = ("MyName", "my.name", "123-abc")
_IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_RELAXED_ENV_TEXT = (
    "a valid environment variable name must consist only of printable ASCII "
    "characters other than '='"
)


def max_len(length: int, unit: str = "characters") -> str:
    """Return the text for a value that is too long."""
    return f"must be no more than {length} {unit}"


def in_range(low: int, high: int) -> str:
    """Return the text for a number outside a range."""
    return f"must be between {low} and {high}, inclusive"


def regex_text(text: str, regex: str, *examples: str) -> str:
    """Return a syntax rule with its examples and regular expression."""
    if not examples:
        return f"{text} (regex used for validation is '{regex}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{regex}')"


def check_dns1123_label(value: str) -> list[str]:
    """Check a name of one DNS label: namespaces, containers, volumes."""
    faults = [max_len(MAX_LABEL)] if len(value.encode()) > MAX_LABEL else []
    if not _LABEL_RE.fullmatch(value):
        if _SUBDOMAIN_RE.fullmatch(value):
            faults.append("must not contain dots")
        else:
            faults.append(regex_text(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return faults


def check_dns1123_subdomain(value: str) -> list[str]:
    """Check a name of DNS labels with dots: most objects."""
    faults = [max_len(MAX_SUBDOMAIN)] if len(value.encode()) > MAX_SUBDOMAIN else []
    if not _SUBDOMAIN_RE.fullmatch(value):
        faults.append(regex_text(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))
    return faults


def check_dns1123_subdomain_underscore(value: str) -> list[str]:
    """Check a DNS search domain, where underscores are allowed."""
    faults = [max_len(MAX_SUBDOMAIN)] if len(value.encode()) > MAX_SUBDOMAIN else []
    if not _SUBDOMAIN_UNDERSCORE_RE.fullmatch(value):
        faults.append(
            regex_text(_SUBDOMAIN_UNDERSCORE_TEXT, _SUBDOMAIN_UNDERSCORE, "example.com")
        )
    return faults


def check_dns1035_label(value: str) -> list[str]:
    """Check a DNS label that starts with a letter."""
    faults = [max_len(MAX_LABEL)] if len(value.encode()) > MAX_LABEL else []
    if not _LABEL_1035_RE.fullmatch(value):
        faults.append(regex_text(_LABEL_1035_TEXT, _LABEL_1035, "my-name", "abc-123"))
    return faults


def check_wildcard_subdomain(value: str) -> list[str]:
    """Check ``*.example.com``."""
    faults = [max_len(MAX_SUBDOMAIN)] if len(value.encode()) > MAX_SUBDOMAIN else []
    if not _WILDCARD_RE.fullmatch(value):
        faults.append(regex_text(_WILDCARD_TEXT, _WILDCARD, "*.example.com"))
    return faults


def check_fqdn(value: str) -> list[str]:
    """Check a domain name of at least two labels; a trailing dot is allowed."""
    name = value.removesuffix(".")
    faults = check_dns1123_subdomain(name)
    if faults:
        return [",".join(faults)]
    if "." not in name:
        return ["should be a domain with at least two segments separated by dots"]
    return []


def check_qualified_name(value: str) -> list[str]:
    """Check a label key, annotation key, finalizer or resource name."""
    parts = value.split("/")
    if len(parts) > 2:
        rule = regex_text(_QUALIFIED_TEXT, _QUALIFIED, *_EXAMPLES_QUALIFIED)
        text = f"a valid label key {rule} with an optional DNS subdomain prefix"
        return [f"{text} and '/' (e.g. 'example.com/MyName')"]
    faults: list[str] = []
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            faults.append("prefix part must be non-empty")
        else:
            faults += [f"prefix part {text}" for text in _prefix_faults(prefix)]
    name = parts[-1]
    if not name:
        faults.append("name part must be non-empty")
    elif len(name.encode()) > MAX_LABEL:
        faults.append(f"name part {max_len(MAX_LABEL, 'bytes')}")
    if not _QUALIFIED_RE.fullmatch(name):
        rule = regex_text(_QUALIFIED_TEXT, _QUALIFIED, *_EXAMPLES_QUALIFIED)
        faults.append(f"name part {rule}")
    return faults


def _prefix_faults(prefix: str) -> list[str]:
    faults = check_dns1123_subdomain(prefix)
    long_text = max_len(MAX_SUBDOMAIN)
    return [
        max_len(MAX_SUBDOMAIN, "bytes") if text == long_text else text
        for text in faults
    ]


def check_label_value(value: str) -> list[str]:
    """Check a label's value."""
    too_long = len(value.encode()) > MAX_LABEL
    faults = [max_len(MAX_LABEL, "bytes")] if too_long else []
    if not _LABEL_VALUE_RE.fullmatch(value):
        faults.append(
            regex_text(_LABEL_VALUE_TEXT, _LABEL_VALUE, "MyValue", "my_value", "12345")
        )
    return faults


def check_port_number(value: int) -> list[str]:
    """Check a port: 1 to 65535."""
    return [] if 1 <= value <= 65535 else [in_range(1, 65535)]


def check_port_name(value: str) -> list[str]:
    """Check an IANA service name, as ports are named."""
    faults = [max_len(15)] if len(value.encode()) > 15 else []
    if not _PORT_NAME_CHARS.fullmatch(value):
        faults.append(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
        )
    if not _LETTER.search(value):
        faults.append("must contain at least one letter (a-z)")
    if "--" in value:
        faults.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def check_user_id(value: int) -> list[str]:
    """Check a Unix user or group number."""
    return [] if 0 <= value <= MAX_INT32 else [in_range(0, MAX_INT32)]


def check_percent(value: str) -> list[str]:
    """Check ``25%``."""
    if _PERCENT_RE.fullmatch(value):
        return []
    text = "a valid percent string must be a numeric string followed by an ending '%'"
    return [regex_text(text, _PERCENT, "1%", "93%")]


def check_http_header(value: str) -> list[str]:
    """Check an HTTP header's name."""
    if _HEADER_RE.fullmatch(value):
        return []
    text = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [regex_text(text, _HEADER, "X-Header-Name")]


def check_env_name(value: str) -> list[str]:
    """Check an environment variable's name by the relaxed rule (GA)."""
    if not value:
        return ["environment variable name must be non-empty"]
    if any(not " " <= char <= "~" or char == "=" for char in value):
        return [_RELAXED_ENV_TEXT]
    return []


def check_config_key(value: str) -> list[str]:
    """Check a key of a ConfigMap or Secret."""
    faults = [max_len(MAX_SUBDOMAIN)] if len(value.encode()) > MAX_SUBDOMAIN else []
    if not _CONFIG_KEY_RE.fullmatch(value):
        text = "a valid config key must consist of alphanumeric characters"
        text += ", '-', '_' or '.'"
        faults.append(regex_text(text, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value == ".":
        faults.append("must not be '.'")
    elif value == "..":
        faults.append("must not be '..'")
    elif value.startswith(".."):
        faults.append("must not start with '..'")
    return faults


def check_c_identifier(value: str) -> list[str]:
    """Check a C identifier."""
    if _C_IDENTIFIER_RE.fullmatch(value):
        return []
    text = (
        "a valid C identifier must start with alphabetic character or '_', followed "
        "by a string of alphanumeric characters or '_'"
    )
    return [regex_text(text, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def check_condition_reason(value: str) -> list[str]:
    """Check the reason of a ``metav1.Condition``."""
    if _CONDITION_REASON_RE.fullmatch(value):
        return []
    text = (
        "a condition reason must start with alphabetic character, optionally followed "
        "by a string of alphanumeric characters or '_,:', and must end with an "
        "alphanumeric character or '_'"
    )
    examples = ("my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB")
    return [regex_text(text, _CONDITION_REASON, *examples)]


def check_path_segment(value: str) -> list[str]:
    """Check that a name is safe as one segment of a path."""
    if value in {".", ".."}:
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def check_ip(value: str) -> list[str]:
    """Check an IPv4 or IPv6 address, as new API fields take it."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return [_IP_TEXT]
    return [_IP_TEXT] if "%" in value else []


def check_cidr(value: str) -> list[str]:
    """Check an address range."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        pass
    else:
        if "/" in value:
            return []
    return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
