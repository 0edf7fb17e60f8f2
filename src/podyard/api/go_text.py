"""Text as Go prints it: quoted strings and maps inside Kubernetes' messages.

Clients and people compare these texts, so they are spelled as upstream spells
them. Source: the Go ``fmt`` and ``strconv`` documentation (``%q`` and ``%v``).
"""

from collections.abc import Iterable

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(text: str) -> str:
    """Return ``text`` as Go's ``%q`` prints it: double quotes, escapes."""
    return f'"{"".join(_escape(char) for char in text)}"'


def _escape(char: str) -> str:
    known = _ESCAPES.get(char)
    if known is not None:
        return known
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def show(value: object) -> str:
    """Return a decoded JSON value as Go's ``%v`` prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = " ".join(f"{key}:{show(value[key])}" for key in sorted(value))
        return f"map[{pairs}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(show(item) for item in value)}]"
    return str(value)


def string_slice(values: Iterable[str]) -> str:
    """Return a list of strings as Go's ``%#v`` prints a ``[]string``."""
    return f"[]string{{{', '.join(quote(value) for value in values)}}}"


def bracketed(values: Iterable[str]) -> str:
    """Return a list of strings as Go's ``%q`` prints a ``[]string``."""
    return f"[{' '.join(quote(value) for value in values)}]"
