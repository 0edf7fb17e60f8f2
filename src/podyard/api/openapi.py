"""The OpenAPI documents: what we serve, told to clients.

``/openapi/v3`` is an index and one document a group version; ``/openapi/v2`` is one
document, kept small because only old clients ask for it. Schemas are the built
definitions, paths come from the table of kinds.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/ and what kubectl
1.20 to 1.33 reads in these documents.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from podyard.api.openapi_wire import encode_openapi_v2
from podyard.api.scheme import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    JOB,
    KINDS,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
)
from podyard.lib.values import dataclass

#: Content types of ``/openapi/v2``. Clients ask for the protobuf form with either
#: name, but Go cannot parse the ``@`` in an answer: always answer with the first.
V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
V2_PROTOBUF_ALIAS: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
JSON: Final = "application/json"

#: The patch types, in the order upstream lists them.
PATCH_TYPES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)

_GVK = "x-kubernetes-group-version-kind"
_ACTION = "x-kubernetes-action"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_V2_REFERENCE = "#/definitions/"
_V3_REFERENCE = "#/components/schemas/"

_Json = dict[str, Any]
_Definitions = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Gvk:
    group: str
    version: str
    kind: str

    def to_json(self) -> dict[str, str]:
        return {"group": self.group, "kind": self.kind, "version": self.version}


@dataclass(frozen=True, slots=True)
class _Subresource:
    """One subresource: its name, the kind it speaks (``None``: text or bytes)."""

    name: str
    actions: tuple[str, ...]
    speaks: _Gvk | None


@dataclass(frozen=True, slots=True)
class _Review:
    """A kind that is only ever posted."""

    gvk: _Gvk
    resource: str
    namespaced: bool = False


_OBJECT_ACTIONS: Final = ("get", "put", "patch")
_SCALE = _Gvk("autoscaling", "v1", "Scale")


def _status(kind: Kind) -> _Subresource:
    return _Subresource("status", _OBJECT_ACTIONS, _gvk(kind))


def _scale() -> _Subresource:
    return _Subresource("scale", _OBJECT_ACTIONS, _SCALE)


def _gvk(kind: Kind) -> _Gvk:
    return _Gvk(kind.group, kind.version, kind.kind)


_SUBRESOURCES: Final[Mapping[Kind, tuple[_Subresource, ...]]] = {
    NAMESPACE: (
        _status(NAMESPACE),
        _Subresource("finalize", ("put",), _gvk(NAMESPACE)),
    ),
    NODE: (_status(NODE), _Subresource("proxy", ("connect",), None)),
    SERVICE: (_status(SERVICE),),
    SERVICE_ACCOUNT: (
        _Subresource(
            "token", ("post",), _Gvk("authentication.k8s.io", "v1", "TokenRequest")
        ),
    ),
    POD: (
        _status(POD),
        _Subresource("binding", ("post",), _Gvk("", "v1", "Binding")),
        _Subresource("eviction", ("post",), _Gvk("policy", "v1", "Eviction")),
        _Subresource("ephemeralcontainers", _OBJECT_ACTIONS, _gvk(POD)),
        _Subresource("log", ("get",), None),
        _Subresource("explain", ("get",), None),
        _Subresource("hooklog", ("get",), None),
        _Subresource("exec", ("connect",), None),
        _Subresource("attach", ("connect",), None),
        _Subresource("portforward", ("connect",), None),
    ),
    PERSISTENT_VOLUME: (_status(PERSISTENT_VOLUME),),
    PERSISTENT_VOLUME_CLAIM: (_status(PERSISTENT_VOLUME_CLAIM),),
    POD_DISRUPTION_BUDGET: (_status(POD_DISRUPTION_BUDGET),),
    DEPLOYMENT: (_status(DEPLOYMENT), _scale()),
    REPLICA_SET: (_status(REPLICA_SET), _scale()),
    STATEFUL_SET: (_status(STATEFUL_SET), _scale()),
    DAEMON_SET: (_status(DAEMON_SET),),
    JOB: (_status(JOB),),
    CRON_JOB: (_status(CRON_JOB),),
}

_AUTHENTICATION = "authentication.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"
_REVIEWS: Final = (
    _Review(_Gvk(_AUTHENTICATION, "v1", "SelfSubjectReview"), "selfsubjectreviews"),
    _Review(_Gvk(_AUTHENTICATION, "v1", "TokenReview"), "tokenreviews"),
    _Review(
        _Gvk(_AUTHORIZATION, "v1", "LocalSubjectAccessReview"),
        "localsubjectaccessreviews",
        namespaced=True,
    ),
    _Review(
        _Gvk(_AUTHORIZATION, "v1", "SelfSubjectAccessReview"),
        "selfsubjectaccessreviews",
    ),
    _Review(
        _Gvk(_AUTHORIZATION, "v1", "SelfSubjectRulesReview"), "selfsubjectrulesreviews"
    ),
    _Review(_Gvk(_AUTHORIZATION, "v1", "SubjectAccessReview"), "subjectaccessreviews"),
)

#: Query parameters: name → OpenAPI type and what it does.
_QUERY: Final = {
    "allowWatchBookmarks": ("boolean", "Send bookmark events during a watch."),
    "continue": ("string", "Go on with a list at this token."),
    "dryRun": ("string", "All: do everything but store the result."),
    "fieldManager": ("string", "The name of who changes the fields."),
    "fieldSelector": ("string", "Only objects whose fields match."),
    "fieldValidation": (
        "string",
        "What to do about unknown and duplicate fields: Ignore, Warn or Strict.",
    ),
    "force": ("boolean", "Take over fields that other managers own."),
    "gracePeriodSeconds": ("integer", "The seconds the object has to end."),
    "labelSelector": ("string", "Only objects whose labels match."),
    "limit": ("integer", "The most objects in one answer."),
    "orphanDependents": ("boolean", "Keep what belongs to the object (deprecated)."),
    "pretty": ("string", "Indent the answer."),
    "propagationPolicy": (
        "string",
        "What becomes of dependents: Orphan, Background or Foreground.",
    ),
    "resourceVersion": ("string", "The version to read at or watch from."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant."),
    "sendInitialEvents": ("boolean", "Begin a watch with what is there."),
    "timeoutSeconds": ("integer", "The longest a list or watch may last."),
    "watch": ("boolean", "Send changes as they happen."),
}
_LIST_QUERY: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_WRITE_QUERY: Final = ("dryRun", "fieldManager", "fieldValidation")
_DELETE_QUERY: Final = (
    "dryRun",
    "gracePeriodSeconds",
    "orphanDependents",
    "propagationPolicy",
)
_ACTION_QUERY: Final = {
    "list": _LIST_QUERY,
    "post": _WRITE_QUERY,
    "put": _WRITE_QUERY,
    "patch": (*_WRITE_QUERY, "force"),
    "delete": _DELETE_QUERY,
    "deletecollection": (*_DELETE_QUERY, *_LIST_QUERY[1:8]),
}
_ACTION_WORDS: Final = {
    "list": ("list", "list or watch objects of kind"),
    "post": ("create", "create a"),
    "put": ("replace", "replace the specified"),
    "patch": ("patch", "partially update the specified"),
    "delete": ("delete", "delete a"),
    "deletecollection": ("deleteCollection", "delete a collection of"),
    "get": ("read", "read the specified"),
    "connect": ("connect", "connect to the specified"),
}
_METHODS: Final = {"list": "get", "deletecollection": "delete", "connect": "get"}


@dataclass(frozen=True, slots=True)
class OpenApiDocument:
    """A document ready to be sent.

    Attributes:
        body: its bytes.
        hash: names this content; part of the URL in the index, and the ETag.
    """

    body: bytes
    hash: str


class SchemaLibrary:
    """The definitions as OpenAPI v3 schemas; each is converted once."""

    def __init__(self, definitions: _Definitions) -> None:
        """Take the built definitions, by name."""
        self._definitions = definitions
        self._schemas: dict[str, orjson.Fragment] = {}
        self._below: dict[str, tuple[str, ...]] = {}
        self._names = {
            _Gvk(gvk["group"], gvk["version"], gvk["kind"]): name
            for name, definition in definitions.items()
            for gvk in definition.get(_GVK, ())
        }

    def name_of(self, gvk: _Gvk) -> str:
        """Return the name of a kind's definition."""
        return self._names[gvk]

    def closure(self, names: Iterable[str]) -> _Json:
        """Return the schemas reached from ``names``, by name, ready to be dumped."""
        found: set[str] = set()
        ahead = list(names)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead.extend(self._references(name))
        return {name: self._schema(name) for name in sorted(found)}

    def _references(self, name: str) -> tuple[str, ...]:
        if name not in self._below:
            self._below[name] = tuple(set(_references(self._definitions[name])))
        return self._below[name]

    def _schema(self, name: str) -> orjson.Fragment:
        if name not in self._schemas:
            converted = _to_v3(name, self._definitions[name])
            self._schemas[name] = orjson.Fragment(orjson.dumps(converted))
        return self._schemas[name]


class OpenApiDocuments:
    """All documents, each made when first asked for and kept."""

    def __init__(self, definitions: _Definitions, version: str) -> None:
        """Take the definitions; nothing is made yet.

        Args:
            definitions: the built definitions, by name.
            version: the Kubernetes version they are of, as ``v1.36.0``.
        """
        self._definitions = definitions
        self._version = version
        self._library = SchemaLibrary(definitions)
        self._made: dict[str, OpenApiDocument] = {}

    def index(self) -> OpenApiDocument:
        """Return ``/openapi/v3``."""
        if "" not in self._made:
            documents = {key: self.v3(key) for key in group_version_keys()}
            self._made[""] = _finish(
                build_index({k: d.hash for k, d in documents.items() if d is not None})
            )
        return self._made[""]

    def v3(self, key: str) -> OpenApiDocument | None:
        """Return ``/openapi/v3/<key>``; ``None`` where there is no such group version.

        Args:
            key: as the index has it: ``api/v1`` or ``apis/apps/v1``.
        """
        group_version = _KEYS.get(key)
        if group_version is None:
            return None
        if key not in self._made:
            body = build_group_version_document(
                self._library, *group_version, release=self._version
            )
            self._made[key] = _finish(body)
        return self._made[key]

    def v2_json(self) -> OpenApiDocument:
        """Return ``/openapi/v2`` as JSON."""
        if "v2" not in self._made:
            document = build_v2_document(self._definitions, release=self._version)
            self._made["v2"] = _finish(orjson.dumps(document))
        return self._made["v2"]

    def v2_protobuf(self) -> OpenApiDocument:
        """Return ``/openapi/v2`` in the protobuf form kubectl asks for."""
        if "v2.pb" not in self._made:
            document = build_v2_document(self._definitions, release=self._version)
            self._made["v2.pb"] = _finish(encode_openapi_v2(document))
        return self._made["v2.pb"]


def _finish(body: bytes) -> OpenApiDocument:
    return OpenApiDocument(body, hashlib.sha512(body).hexdigest().upper())


def _key(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


_KEYS: Final = {
    _key(group, version): (group, version)
    for group, version in dict.fromkeys(
        [(kind.group, kind.version) for kind in KINDS]
        + [(review.gvk.group, review.gvk.version) for review in _REVIEWS]
    )
}


def group_version_keys() -> tuple[str, ...]:
    """Return the keys of the index, as ``apis/apps/v1``, sorted."""
    return tuple(sorted(_KEYS))


def build_index(hashes: Mapping[str, str]) -> bytes:
    """Return the ``/openapi/v3`` index.

    Args:
        hashes: each document's hash, by key. A client that has seen the URL with
            this hash never asks for the document again.
    """
    paths = {
        key: {"serverRelativeURL": f"/openapi/v3/{key}?hash={digest}"}
        for key, digest in sorted(hashes.items())
    }
    return orjson.dumps({"paths": paths})


def build_group_version_document(
    library: SchemaLibrary, group: str, version: str, *, release: str
) -> bytes:
    """Return one group version's OpenAPI v3 document.

    Args:
        library: all definitions.
        group: empty for core.
        version: of the group.
        release: the Kubernetes version the document speaks for.
    """
    paths: _Json = {}
    for kind in KINDS:
        if (kind.group, kind.version) == (group, version):
            paths.update(_kind_paths(kind, library))
    for review in _REVIEWS:
        if (review.gvk.group, review.gvk.version) == (group, version):
            paths.update(_review_paths(review, library))
    return orjson.dumps(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": release},
            "paths": dict(sorted(paths.items())),
            "components": {"schemas": library.closure(_references(paths))},
        }
    )


def build_v2_document(definitions: _Definitions, *, release: str) -> _Json:
    """Return the OpenAPI v2 document: all definitions, and the patch operations.

    kubectl looks in the paths for nothing but whether a kind's PATCH takes
    ``dryRun``; the rest of the paths is told by v3.
    """
    paths: _Json = {}
    for kind in KINDS:
        operation = {
            "operationId": _operation_id("patch", _gvk(kind), kind, ""),
            "consumes": list(PATCH_TYPES),
            "produces": [JSON],
            "parameters": [
                _query_v2(name) for name in (*_ACTION_QUERY["patch"], "pretty")
            ],
            "responses": {"200": {"description": "OK"}},
            _ACTION: "patch",
            _GVK: _gvk(kind).to_json(),
        }
        names = ["namespace", "name"] if kind.namespaced else ["name"]
        paths[kind.path("{namespace}", "{name}")] = {
            "patch": operation,
            "parameters": [
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "type": "string",
                    "description": f"The {name} of the object.",
                }
                for name in names
            ],
        }
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": dict(sorted(paths.items())),
        "definitions": definitions,
    }


# --- paths --------------------------------------------------------------------


def _kind_paths(kind: Kind, library: SchemaLibrary) -> Iterator[tuple[str, _Json]]:
    gvk = _gvk(kind)
    schema = library.name_of(gvk)
    listed = library.name_of(_Gvk(kind.group, kind.version, kind.list_kind))
    status = f"{_META}Status"
    whole = {
        "list": _operation("list", gvk, kind, answer=listed),
        "post": _operation("post", gvk, kind, body=schema, answer=schema),
        "deletecollection": _operation(
            "deletecollection", gvk, kind, body=f"{_META}DeleteOptions", answer=status
        ),
    }
    one = {
        "get": _operation("get", gvk, kind, answer=schema),
        "put": _operation("put", gvk, kind, body=schema, answer=schema),
        "patch": _operation("patch", gvk, kind, answer=schema),
        "delete": _operation(
            "delete", gvk, kind, body=f"{_META}DeleteOptions", answer=status
        ),
    }
    yield (
        kind.path("{namespace}"),
        _path_item(whole, namespaced=kind.namespaced, named=False),
    )
    if kind.namespaced:
        everywhere = {"list": _operation("list", gvk, kind, answer=listed, all_=True)}
        yield kind.path(), _path_item(everywhere, namespaced=False, named=False)
    yield (
        kind.path("{namespace}", "{name}"),
        _path_item(one, namespaced=kind.namespaced, named=True),
    )
    for sub in _SUBRESOURCES.get(kind, ()):
        spoken = library.name_of(sub.speaks) if sub.speaks else ""
        operations = {
            action: _operation(
                action,
                sub.speaks or gvk,
                kind,
                sub=sub.name,
                body=spoken if action in {"post", "put"} else "",
                answer=spoken,
            )
            for action in sub.actions
        }
        path = kind.path("{namespace}", "{name}", sub.name)
        yield path, _path_item(operations, namespaced=kind.namespaced, named=True)


def _review_paths(
    review: _Review, library: SchemaLibrary
) -> Iterator[tuple[str, _Json]]:
    gvk, schema = review.gvk, library.name_of(review.gvk)
    as_kind = Kind(
        gvk.group, gvk.version, gvk.kind, review.resource, namespaced=review.namespaced
    )
    post = _operation("post", gvk, as_kind, body=schema, answer=schema)
    item = _path_item({"post": post}, namespaced=review.namespaced, named=False)
    yield as_kind.path("{namespace}"), item


def _path_item(
    operations: Mapping[str, _Json], *, namespaced: bool, named: bool
) -> _Json:
    parameters = [_query_v3("pretty")]
    for name, wanted in (("namespace", namespaced), ("name", named)):
        if wanted:
            parameters.append(
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "description": f"The {name} of the object.",
                    "schema": {"type": "string", "uniqueItems": True},
                }
            )
    item: _Json = {
        _METHODS.get(action, action): op for action, op in operations.items()
    }
    if "connect" in operations:
        # one door, two methods; each needs a name of its own
        twin = dict(operations["connect"])
        twin["operationId"] = twin["operationId"].replace("Get", "Post", 1)
        item["post"] = twin
    item["parameters"] = parameters
    return item


def _operation(
    action: str,
    gvk: _Gvk,
    kind: Kind,
    *,
    sub: str = "",
    body: str = "",
    answer: str = "",
    all_: bool = False,
) -> _Json:
    """Build one operation.

    Args:
        action: upstream's word for it.
        gvk: the kind the operation is about.
        kind: the kind whose path it is.
        sub: the subresource, if it is one.
        body: the definition of the request's body.
        answer: the definition of the answer; text where there is none.
        all_: a list over all namespaces.
    """
    words = f"{_ACTION_WORDS[action][1]} {gvk.kind}"
    content: _Json = {"schema": {"type": "string"}}
    media = "*/*" if action == "connect" else "text/plain"
    if answer:
        content, media = {"schema": _reference(answer)}, JSON
    codes = {"post": ("200", "201", "202"), "put": ("200", "201")}.get(action, ("200",))
    operation: _Json = {
        "tags": [f"{(kind.group or 'core').split('.')[0]}_{kind.version}"],
        "description": f"{words}, {sub}" if sub else words,
        "operationId": _operation_id(action, gvk, kind, sub, all_=all_),
        "parameters": [_query_v3(name) for name in _ACTION_QUERY.get(action, ())],
        "responses": {
            **{
                code: {"description": "OK", "content": {media: content}}
                for code in codes
            },
            "401": {"description": "Unauthorized"},
        },
        _ACTION: action,
        _GVK: gvk.to_json(),
    }
    if action == "patch":
        patch = {"schema": _reference(f"{_META}Patch")}
        operation["requestBody"] = {
            "content": dict.fromkeys(PATCH_TYPES, patch),
            "required": True,
        }
    elif body:
        operation["requestBody"] = {
            "content": {"*/*": {"schema": _reference(body)}},
            "required": not body.endswith("DeleteOptions"),
        }
    return operation


def _operation_id(
    action: str, gvk: _Gvk, kind: Kind, sub: str, *, all_: bool = False
) -> str:
    group = (kind.group or "core").split(".")[0].capitalize()
    verb = _ACTION_WORDS[action][0]
    lead, collection, _ = verb.partition("Collection")
    collection = "Get" if action == "connect" else collection
    scope = "Namespaced" if kind.namespaced and not all_ else ""
    tail = sub.capitalize() + ("ForAllNamespaces" if all_ else "")
    noun = kind.kind if sub else gvk.kind
    version = kind.version.capitalize()
    return f"{lead}{group}{version}{collection}{scope}{noun}{tail}"


def _query_v3(name: str) -> _Json:
    kind, words = _QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": words,
        "schema": {"type": kind, "uniqueItems": True},
    }


def _query_v2(name: str) -> _Json:
    kind, words = _QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": words,
        "type": kind,
        "uniqueItems": True,
    }


def _reference(name: str) -> _Json:
    return {"$ref": f"{_V3_REFERENCE}{name}"}


# --- schemas ------------------------------------------------------------------

#: Types that are a choice; version 2 of OpenAPI cannot say so, version 3 can.
_CHOICES: Final = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("string", "number"),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("integer", "string"),
}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "$ref" and isinstance(item, str):
                yield item.rpartition("/")[2]
            elif isinstance(item, Mapping | list):
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _to_v3(name: str, definition: Mapping[str, Any]) -> _Json:
    converted: _Json = _convert(definition)
    choice = _CHOICES.get(name)
    if choice is not None:
        converted.pop("type", None)
        converted["oneOf"] = [{"type": kind} for kind in choice]
    return converted


def _convert(value: Any) -> Any:
    """Turn a version 2 schema into version 3: a reference may have no neighbours."""
    if isinstance(value, list):
        return [_convert(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {key: _convert(item) for key, item in value.items()}
    moved = {"$ref": reference.replace(_V2_REFERENCE, _V3_REFERENCE)}
    if len(value) == 1:
        return moved
    rest = {key: _convert(item) for key, item in value.items() if key != "$ref"}
    return {**rest, "allOf": [moved]}
