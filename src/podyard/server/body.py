"""Request bodies → documents: media types, strictness, what the path fills in."""

from typing import Any, Final

import orjson

from podyard.api.documents import Document
from podyard.api.errors import (
    ApiError,
    bad_request,
    invalid_object,
    not_supported,
)
from podyard.api.protobuf import ProtobufError, decode_protobuf
from podyard.api.schema import (
    Schemas,
    duplicate_fields,
    parse_json,
    strict_decoding_error,
)
from podyard.lib.values import dataclass
from podyard.lib.yaml_json import YamlError, load_yaml
from podyard.server.call import Call

_JSON: Final = "application/json"
_YAML: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_VALIDATIONS: Final = ("Ignore", "Warn", "Strict")


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded body.

    Attributes:
        document: what it holds.
        duplicates: texts that name the fields given twice.
    """

    document: Any
    duplicates: tuple[str, ...] = ()


def media_type(call: Call) -> str:
    """Return the body's media type; none means JSON."""
    header = call.headers.get("Content-Type") or ""
    media = header.partition(";")[0].strip().lower()
    # curl and some clients say this when they were told nothing.
    return _JSON if media in {"", "application/octet-stream"} else media


def decode_body(call: Call, *, find_duplicates: bool = True) -> Body:
    """Decode the body by its media type.

    Raises:
        ApiError: 400 where it is broken, 415 where the type is unknown.
    """
    body = _decode(call, find_duplicates=find_duplicates)
    check_depth(body.document)
    return body


def check_depth(document: Any) -> None:
    """Refuse what could be read but never be written again.

    Raises:
        ApiError: 400, it nests deeper than the encoder goes (254 levels).
    """
    try:
        orjson.dumps(document)
    except TypeError as error:
        raise bad_request(f"the body nests too deeply: {error}") from error


def _decode(call: Call, *, find_duplicates: bool) -> Body:
    media = media_type(call)
    if media in {_JSON, "text/json"}:
        document = parse_json(call.body)
        return Body(document, duplicate_fields(call.body) if find_duplicates else ())
    if media in _YAML:
        return _decode_yaml(call.body)
    if media == _PROTOBUF:
        try:
            return Body(decode_protobuf(call.body))
        except ProtobufError as error:
            raise bad_request(f"the body cannot be decoded: {error}") from error
    raise unsupported_media((_JSON, "application/yaml", _PROTOBUF))


def _decode_yaml(body: bytes) -> Body:
    try:
        document, doubled = load_yaml(body)
    except YamlError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from error
    return Body(document, tuple(f'key "{key}" already set in map' for key in doubled))


def unsupported_media(accepted: tuple[str, ...]) -> ApiError:
    """415: the body's media type is not one of these."""
    message = (
        "the body of the request was in an unknown format - accepted media types "
        f"include: {', '.join(accepted)}"
    )
    return ApiError(415, "UnsupportedMediaType", message)


def validation_of(call: Call, options_kind: str) -> str:
    """Return ``Ignore``, ``Warn`` or ``Strict``.

    Raises:
        ApiError: 422, the parameter is something else.
    """
    text = call.info.param("fieldValidation") or "Warn"
    if text not in _VALIDATIONS:
        error = not_supported("fieldValidation", text, _VALIDATIONS)
        raise invalid_object("meta.k8s.io", options_kind, "", [error])
    return text


def is_dry_run(call: Call, options_kind: str, values: Any = None) -> bool:
    """Say whether nothing shall be stored.

    Args:
        call: the request, whose query is looked at.
        options_kind: ``CreateOptions`` …, for the error.
        values: the ``dryRun`` of a body with options.

    Raises:
        ApiError: 422, something else than ``All`` was asked.
    """
    given = values if values is not None else call.info.query.get("dryRun")
    if not given:
        return False
    wrong = [value for value in given if value != "All"]
    if wrong:
        error = not_supported("dryRun", list(given), ("All",))
        raise invalid_object("meta.k8s.io", options_kind, "", [error])
    return True


def read_object(
    call: Call,
    schemas: Schemas,
    api_version: str,
    kind: str,
    *,
    options_kind: str,
    also: tuple[str, ...] = (),
) -> Document:
    """Decode the body into one object of a kind, pruned and checked.

    Unknown and duplicate fields are refused, told or ignored as the request says.

    Args:
        call: the request.
        schemas: the definitions of all kinds.
        api_version: the version the object is to be of.
        kind: the kind it is to be of.
        options_kind: what the request's options are called.
        also: versions that older clients send and that mean the same.

    Raises:
        ApiError: 400, 415 or 422.
    """
    validation = validation_of(call, options_kind)
    body = decode_body(call, find_duplicates=validation != "Ignore")
    document = body.document
    if not isinstance(document, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): "
            "couldn't get version/kind; json parse error: the body is no object"
        )
    if document.get("apiVersion") in also:
        document["apiVersion"] = api_version
    check_gvk(document, api_version, kind)
    checked = schemas.decode(api_version, kind, document)
    problems = (*checked.unknown, *body.duplicates)
    if problems:
        report(call, validation, api_version, kind, problems)
    result = checked.document
    result["apiVersion"], result["kind"] = api_version, kind
    return result


def check_gvk(document: Document, api_version: str, kind: str) -> None:
    """Let the body be of the path's kind, or say nothing about it.

    Raises:
        ApiError: 400, it is of another.
    """
    given_version, given_kind = document.get("apiVersion"), document.get("kind")
    for value in (given_version, given_kind):
        if value is not None and not isinstance(value, str):
            raise bad_request(
                "couldn't get version/kind; json parse error: json: cannot unmarshal "
                f"{orjson.dumps(value).decode()[:40]} into a string"
            )
    if given_kind and given_kind != kind:
        version = (given_version or api_version).rpartition("/")[2]
        raise bad_request(
            f'{given_kind} in version "{version}" cannot be handled as a {kind}: '
            f"converting ({given_kind}) to ({kind}): unknown conversion"
        )
    if given_version and given_version != api_version:
        raise bad_request(
            f"the API version in the data ({given_version}) does not match the "
            f"expected API version ({api_version})"
        )


def report(
    call: Call,
    validation: str,
    api_version: str,
    kind: str,
    problems: tuple[str, ...],
) -> None:
    """Refuse, tell or ignore unknown and duplicate fields.

    Raises:
        ApiError: 400 under ``Strict``.
    """
    if validation == "Strict":
        raise strict_decoding_error(api_version, kind, problems)
    if validation == "Warn":
        call.warnings.extend(problems)


def read_options(call: Call, schemas: Schemas, kind: str) -> Document:
    """Decode an optional body of options (``DeleteOptions``).

    Raises:
        ApiError: 400 or 415.
    """
    if not call.body:
        return {}
    document = decode_body(call, find_duplicates=False).document
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise bad_request(f"the object provided is no {kind}")
    return schemas.decode("v1", kind, document).document
