"""The options of list and watch: parsed once, refused as upstream refuses them.

Source: apimachinery ``meta/internalversion/validation`` (v1.36).
"""

import base64
import binascii
from typing import Final

import orjson

from podyard.api.errors import (
    ApiError,
    FieldError,
    bad_request,
    forbidden_field,
    invalid_object,
    not_supported,
)
from podyard.api.labels import (
    EVERYTHING,
    FieldSelector,
    SelectorError,
    parse_field_selector,
    parse_selector,
)
from podyard.lib.values import dataclass
from podyard.server.build import RequestInfo
from podyard.server.registry import Selection
from podyard.server.resource import Resource

#: A continue token that goes on at the newest revision.
INCONSISTENT: Final = -1
_MATCH: Final = "resourceVersionMatch"


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list or watch is asked.

    Attributes:
        selection: which objects.
        rev: the revision named, ``None`` where there is none.
        exact: exactly that revision.
        limit: most objects in one answer, 0 for all.
        start_after: the last key of the page before.
        page_rev: the revision of the pages, from the continue token.
        bookmarks: the watch wants bookmarks.
        initial_events: the watch begins with what is there and says when that ended.
        timeout_s: when the watch ends, 0 for our choice.
    """

    selection: Selection
    rev: int | None = None
    exact: bool = False
    limit: int = 0
    start_after: str = ""
    page_rev: int | None = None
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout_s: int = 0


def parse_list_options(
    info: RequestInfo, resource: Resource, *, is_watch: bool
) -> ListOptions:
    """Read the query of a list or watch.

    Raises:
        ApiError: 400 or 422.
    """
    faults = list(_faults(info, is_watch=is_watch))
    if faults:
        raise invalid_object("meta.k8s.io", "ListOptions", "", faults)
    start_after, page_rev = "", None
    token = info.param("continue")
    rev_text = info.param("resourceVersion")
    if token and not is_watch:
        if rev_text and rev_text != "0":
            raise bad_request(
                "specifying resource version is not allowed when using continue"
            )
        start_after, page_rev = decode_continue(token)
    initial: bool | None = None
    if "sendInitialEvents" in info.query:
        initial = info.flag("sendInitialEvents")
    return ListOptions(
        selection=parse_selection(info, resource),
        rev=parse_rev(rev_text),
        exact=info.param(_MATCH) == "Exact",
        limit=max(_integer(info, "limit"), 0),
        start_after=start_after,
        page_rev=page_rev,
        bookmarks=info.flag("allowWatchBookmarks"),
        initial_events=initial,
        timeout_s=max(_integer(info, "timeoutSeconds"), 0),
    )


def _faults(info: RequestInfo, *, is_watch: bool) -> list[FieldError]:
    match = info.param(_MATCH)
    rev = info.param("resourceVersion")
    initial = "sendInitialEvents" in info.query
    if initial and not is_watch:
        return [
            forbidden_field(
                "sendInitialEvents", "sendInitialEvents is forbidden for list"
            )
        ]
    if initial:
        if match != "NotOlderThan":
            detail = "sendInitialEvents requires setting resourceVersionMatch to "
            return [forbidden_field(_MATCH, f"{detail}NotOlderThan")]
        if info.flag("sendInitialEvents") and not info.flag("allowWatchBookmarks"):
            return [
                forbidden_field(
                    "sendInitialEvents", "sendInitialEvents needs allowWatchBookmarks"
                )
            ]
        return []
    if not match:
        return []
    why = ""
    if is_watch:
        why = "for watch unless sendInitialEvents is provided"
    elif info.param("continue"):
        why = "when continue is provided"
    elif not rev:
        why = "unless resourceVersion is provided"
    if why:
        return [forbidden_field(_MATCH, f"{_MATCH} is forbidden {why}")]
    if match not in {"Exact", "NotOlderThan"}:
        return [not_supported(_MATCH, match, ("Exact", "NotOlderThan", ""))]
    if match == "Exact" and rev == "0":
        return [
            forbidden_field(
                _MATCH, f'{_MATCH} "Exact" is forbidden for resourceVersion "0"'
            )
        ]
    return []


def _integer(info: RequestInfo, name: str) -> int:
    text = info.param(name)
    if not text:
        return 0
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not (text.isascii() and -(2**63) <= number < 2**63):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return number


def parse_rev(text: str) -> int | None:
    """Return a resourceVersion as a number; empty is ``None``.

    Raises:
        ApiError: 400, it is no number.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_request(
            f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": '
            "invalid syntax"
        )
    return int(text)


def parse_selection(info: RequestInfo, resource: Resource) -> Selection:
    """Read the selectors.

    Raises:
        ApiError: 400, one makes no sense or names a field that cannot be selected.
    """
    label_text, field_text = info.param("labelSelector"), info.param("fieldSelector")
    try:
        labels = parse_selector(label_text) if label_text else EVERYTHING
        fields = parse_field_selector(field_text) if field_text else FieldSelector()
    except SelectorError as error:
        raise bad_request(str(error)) from error
    known = {"metadata.name", "metadata.namespace", *resource.selectable_fields}
    for requirement in fields.requirements:
        if requirement.field in known:
            continue
        if resource.selectable_fields:
            raise bad_request(f"field label not supported: {requirement.field}")
        raise bad_request(
            f'"{requirement.field}" is not a known field selector: only '
            '"metadata.name", "metadata.namespace"'
        )
    name = fields.exact("metadata.name")
    if info.name and info.verb == "watch" and name is None:
        name = info.name  # the old form, /api/v1/watch/…/NAME
    return Selection(labels, fields, name)


def encode_continue(rev: int, start_after: str) -> str:
    """Return the token of the page behind ``start_after``."""
    body = orjson.dumps({"v": "meta.k8s.io/v1", "rv": rev, "start": start_after})
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def decode_continue(token: str) -> tuple[str, int]:
    """Return where a page starts and at which revision.

    Raises:
        ApiError: 400, we made no such token.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        document = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
        start, rev = document["start"], document["rv"]
    except (
        binascii.Error,
        UnicodeEncodeError,
        orjson.JSONDecodeError,
        KeyError,
        TypeError,
    ) as error:
        raise bad_request("continue key is not valid") from error
    if not isinstance(start, str) or not isinstance(rev, int) or rev < INCONSISTENT:
        raise bad_request("continue key is not valid")
    return start, rev


def expired_continue(start_after: str) -> ApiError:
    """410: the pages' revision is compacted; the Status offers to go on anyway."""
    message = (
        "The provided continue parameter is too old to display a consistent list "
        "result. You can start a new list without the continue parameter, or use the "
        "continue token in this response to retrieve the remainder of the results. "
        "Continuing with the provided token results in an inconsistent list - objects "
        "that were created, modified, or deleted between the time the first chunk was "
        "returned and now may show up in the list."
    )
    return ExpiredContinueError(message, encode_continue(INCONSISTENT, start_after))


class ExpiredContinueError(ApiError):
    """410 with a token in the Status' metadata."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(410, "Expired", message)
        self.token = token

    def to_status(self) -> dict[str, object]:
        """Return the Status, with the token."""
        return {**super().to_status(), "metadata": {"continue": self.token}}
