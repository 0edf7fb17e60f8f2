"""Rules of Events, in the core group and in ``events.k8s.io``.

Source: ``pkg/apis/core/validation/events.go`` (v1.36).
"""

from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import FieldError, invalid, required
from podyard.api.syntax import check_qualified_name
from podyard.api.validation.faults import check_immutable, check_text

_MAX_NAME: Final = 128
_MAX_NOTE: Final = 1024
_TYPES: Final = ("Normal", "Warning")


def check_event(event: Document) -> Iterator[FieldError]:
    """Check a core Event; one with ``eventTime`` is ruled like a new one."""
    subject = event.get("involvedObject") or {}
    yield from _check_namespaces(event, subject, "involvedObject")
    if event.get("eventTime") is not None:
        yield from _check_reporter(event, "reportingComponent", "message")


def check_event_v1(event: Document) -> Iterator[FieldError]:
    """Check an ``events.k8s.io`` Event."""
    yield from _check_namespaces(event, event.get("regarding") or {}, "regarding")
    if event.get("eventTime") is None:
        yield required("eventTime")
    yield from _check_reporter(event, "reportingController", "note")
    if event.get("type") not in _TYPES:
        yield invalid("type", event.get("type") or "", "has invalid value: ")


def _check_namespaces(
    event: Document, subject: Document, field: str
) -> Iterator[FieldError]:
    namespace = (event.get("metadata") or {}).get("namespace") or ""
    other = subject.get("namespace") or ""
    # Events about objects without a namespace live in the default one.
    expected = {other} if other else {"", "default", "kube-system"}
    if namespace not in expected:
        yield invalid(f"{field}.namespace", other, "does not match event.namespace")


def _check_reporter(event: Document, component: str, note: str) -> Iterator[FieldError]:
    name = event.get(component) or ""
    if not name:
        yield required("reportingController")
    else:
        yield from check_text("reportingController", name, check_qualified_name)
    for key in ("reportingInstance", "action", "reason"):
        value = event.get(key) or ""
        if not value:
            yield required(key)
        elif len(value) > _MAX_NAME:
            yield invalid(key, "", f"can have at most {_MAX_NAME} characters")
    if len((event.get(note) or "").encode()) > _MAX_NOTE:
        yield invalid(note, "", f"can have at most {_MAX_NOTE} characters")


def check_event_v1_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that nothing but the series changed."""
    for key in ("regarding", "reason", "action", "type", "note", "eventTime"):
        yield from check_immutable(key, new.get(key), old.get(key))
