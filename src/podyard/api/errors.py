"""Errors as a Kubernetes client sees them: a Status with reason and causes.

Source: apimachinery ``api/errors`` and ``util/validation/field`` (v1.36).
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, Self

import orjson

from podyard.api.documents import Document
from podyard.lib.values import dataclass

#: The cause of a 403 where nothing new may be made because the namespace goes.
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"


class FieldErrorType(StrEnum):
    """The cause reasons of a validation error."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    FORBIDDEN = "FieldValueForbidden"
    DUPLICATE = "FieldValueDuplicate"
    NOT_FOUND = "FieldValueNotFound"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    TYPE_INVALID = "FieldValueTypeInvalid"
    INTERNAL = "InternalError"


_LEAD = {
    FieldErrorType.REQUIRED: "Required value",
    FieldErrorType.INVALID: "Invalid value",
    FieldErrorType.NOT_SUPPORTED: "Unsupported value",
    FieldErrorType.FORBIDDEN: "Forbidden",
    FieldErrorType.DUPLICATE: "Duplicate value",
    FieldErrorType.NOT_FOUND: "Not found",
    FieldErrorType.TOO_LONG: "Too long",
    FieldErrorType.TOO_MANY: "Too many",
    FieldErrorType.TYPE_INVALID: "Invalid value",
    FieldErrorType.INTERNAL: "Internal error",
}
_VALUELESS = {
    FieldErrorType.REQUIRED,
    FieldErrorType.FORBIDDEN,
    FieldErrorType.TOO_LONG,
    FieldErrorType.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in one field.

    Attributes:
        type: the cause reason.
        field: the path, as ``spec.containers[0].image``.
        detail: what is wrong, or an empty string.
        value: the bad value; not shown for required, forbidden and too long ones.
    """

    type: FieldErrorType
    field: str
    detail: str = ""
    value: object = None

    @property
    def body(self) -> str:
        """The message without the field."""
        text = _LEAD[self.type]
        if self.type not in _VALUELESS:
            text += f": {_show(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def _show(value: object) -> str:
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if value is None:
        return "null"
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:
        return str(value)


def required(field: str, detail: str = "") -> FieldError:
    """Return the error for an empty field that must not be."""
    return FieldError(FieldErrorType.REQUIRED, field, detail)


def invalid(field: str, value: object, detail: str) -> FieldError:
    """Return the error for a value that breaks a rule."""
    return FieldError(FieldErrorType.INVALID, field, detail, value)


def not_supported(field: str, value: object, supported: Iterable[str]) -> FieldError:
    """Return the error for a value outside an enumeration."""
    names = ", ".join(f'"{name}"' for name in supported)
    return FieldError(
        FieldErrorType.NOT_SUPPORTED, field, f"supported values: {names}", value
    )


def forbidden_field(field: str, detail: str) -> FieldError:
    """Return the error for a field that may not be set here."""
    return FieldError(FieldErrorType.FORBIDDEN, field, detail)


def duplicate(field: str, value: object) -> FieldError:
    """Return the error for a second entry of the same key."""
    return FieldError(FieldErrorType.DUPLICATE, field, "", value)


class ApiError(Exception):
    """An API request that failed, with everything its Status needs.

    Attributes:
        code: the HTTP status.
        reason: the Status reason (``NotFound``); empty where upstream has none.
        message: the full sentence a client prints.
        details: the Status details, or ``None``.
    """

    def __init__(
        self, code: int, reason: str, message: str, details: Document | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def to_status(self) -> Document:
        """Return the ``v1.Status`` document."""
        status: Document = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if not self.reason:
            del status["reason"]
        if self.details:
            status["details"] = self.details
        return status

    @classmethod
    def from_status(cls, status: Document, *, code: int = 0) -> Self:
        """Rebuild the error from a Status document (``code`` where it has none)."""
        return cls(
            int(status.get("code") or code or 500),
            str(status.get("reason") or ""),
            str(status.get("message") or "unknown error"),
            status.get("details"),
        )


def qualified(group: str, resource: str) -> str:
    """Return ``deployments.apps`` or, for the core group, ``pods``."""
    return f"{resource}.{group}" if group else resource


def _details(group: str, resource: str, name: str) -> Document:
    details: Document = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if resource:
        details["kind"] = resource
    return details


def not_found(group: str, resource: str, name: str) -> ApiError:
    """404: the object does not exist."""
    message = f'{qualified(group, resource)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(group, resource, name))


def path_not_found() -> ApiError:
    """404: no such path."""
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {})


def already_exists(group: str, resource: str, name: str) -> ApiError:
    """409: the name is taken."""
    message = f'{qualified(group, resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(group, resource, name))


def conflict(group: str, resource: str, name: str, detail: str = "") -> ApiError:
    """409: the object changed meanwhile, or a precondition failed."""
    why = detail or (
        "the object has been modified; please apply your changes to the latest "
        "version and try again"
    )
    message = (
        f'Operation cannot be fulfilled on {qualified(group, resource)} "{name}": {why}'
    )
    return ApiError(409, "Conflict", message, _details(group, resource, name))


def forbidden(group: str, resource: str, name: str, detail: str) -> ApiError:
    """403: admission or authorization said no."""
    what = qualified(group, resource)
    subject = f'{what} "{name}"' if name else what
    message = f"{subject} is forbidden: {detail}"
    return ApiError(403, "Forbidden", message, _details(group, resource, name))


def bad_request(message: str) -> ApiError:
    """400: the request itself makes no sense."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: no or bad credentials."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def method_not_allowed(group: str, resource: str, action: str) -> ApiError:
    """405: this kind has no such verb."""
    message = (
        f'{action} is not supported on resources of kind "{qualified(group, resource)}"'
    )
    return ApiError(405, "MethodNotAllowed", message, _details(group, resource, ""))


def expired(message: str) -> ApiError:
    """410: the revision asked for is compacted away."""
    return ApiError(410, "Expired", message)


def too_large(limit_bytes: int) -> ApiError:
    """413: the body is over the limit."""
    message = f"Request entity too large: limit is {limit_bytes}"
    return ApiError(413, "RequestEntityTooLarge", message)


def internal(message: str) -> ApiError:
    """500: our fault."""
    text = f"Internal error occurred: {message}"
    return ApiError(500, "InternalError", text, {"causes": [{"message": message}]})


def invalid_object(
    group: str, kind: str, name: str, errors: Sequence[FieldError]
) -> ApiError:
    """422: the object breaks its kind's rules; every fault is a cause."""
    bodies = [str(error) for error in errors]
    text = bodies[0] if len(bodies) == 1 else f"[{', '.join(bodies)}]"
    details: Document = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [
        {"reason": str(error.type), "message": error.body, "field": error.field}
        for error in errors
    ]
    what = f"{kind}.{group}" if group else kind
    return ApiError(422, "Invalid", f'{what} "{name}" is invalid: {text}', details)
