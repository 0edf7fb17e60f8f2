"""Rules of RuntimeClasses.

Source: ``pkg/apis/node/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/containers/runtime-class/
"""

from collections.abc import Iterator

from podyard.api.documents import Document
from podyard.api.errors import FieldError, duplicate, required
from podyard.api.syntax import check_dns1123_label
from podyard.api.validation.faults import check_immutable, check_text
from podyard.api.validation.object_meta import check_labels
from podyard.api.validation.pod_spec import check_overhead
from podyard.api.validation.scheduling import check_tolerations
from podyard.api.validation.scope import Scope


def check_runtime_class(runtime_class: Document, scope: Scope) -> Iterator[FieldError]:
    """Check the handler, the overhead and the scheduling constraints."""
    handler = runtime_class.get("handler") or ""
    if not handler:
        yield required("handler")
    else:
        yield from check_text("handler", handler, check_dns1123_label)
    overhead = (runtime_class.get("overhead") or {}).get("podFixed")
    if overhead:
        yield from check_overhead(overhead, "overhead.podFixed")
    scheduling = runtime_class.get("scheduling") or {}
    yield from check_labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
    tolerations = scheduling.get("tolerations") or []
    for index, toleration in enumerate(tolerations):
        where = f"scheduling.tolerations[{index}]"
        yield from _at(where, toleration, scope)
        if toleration in tolerations[:index]:
            yield duplicate(where, toleration)


def _at(field: str, toleration: Document, scope: Scope) -> Iterator[FieldError]:
    for fault in check_tolerations([toleration], "", scope):
        yield FieldError(
            fault.type,
            f"{field}{fault.field.removeprefix('[0]')}",
            fault.detail,
            fault.value,
        )


def check_runtime_class_update(new: Document, old: Document) -> Iterator[FieldError]:
    """Check that the handler stays; the rest may change."""
    yield from check_immutable("handler", new.get("handler"), old.get("handler"))
