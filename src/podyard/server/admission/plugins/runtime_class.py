"""What a RuntimeClass says of overhead and scheduling goes into its Pods.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/ and kubernetes
``plugin/pkg/admission/runtimeclass`` (v1.36).
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.resources import parse_resources
from podyard.api.scheme import RUNTIME_CLASS
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import AdmissionPlugin, AdmissionRequest, Lookup
from podyard.server.admission.pods import is_pod_creation, pod_spec

_DIFFERS: Final = (
    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
)
_UNDEFINED: Final = (
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
)


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Write overhead, node selector and tolerations of the class into a Pod.

    Raises:
        ApiError: 403, there is no such class, or the Pod contradicts it.
    """
    if not is_pod_creation(request):
        return
    runtime_class = await _find(request, lookup)
    if runtime_class is None:
        return
    spec = pod_spec(request)
    overhead = _overhead(runtime_class)
    if overhead is not None:
        if spec.get("overhead") and not _equal(spec["overhead"], overhead):
            raise deny(request, _DIFFERS)
        spec["overhead"] = dict(overhead)
    scheduling = runtime_class.get("scheduling")
    if scheduling:
        _merge_scheduling(request, spec, scheduling)


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse a Pod whose overhead is not its class's.

    Raises:
        ApiError: 403.
    """
    if not is_pod_creation(request):
        return
    runtime_class = await _find(request, lookup)
    claimed = pod_spec(request).get("overhead") or {}
    overhead = _overhead(runtime_class) if runtime_class is not None else None
    if overhead is None:
        if claimed:
            raise deny(request, _UNDEFINED)
    elif not _equal(claimed, overhead):
        raise deny(request, _DIFFERS)


async def _find(request: AdmissionRequest, lookup: Lookup) -> Document | None:
    name = pod_spec(request).get("runtimeClassName")
    if name is None:
        return None
    found = await lookup.get(RUNTIME_CLASS, "", name)
    if found is None:
        raise deny(request, f'pod rejected: RuntimeClass "{name}" not found')
    return found


def _overhead(runtime_class: Document) -> Document | None:
    overhead = runtime_class.get("overhead")
    return None if overhead is None else overhead.get("podFixed") or {}


def _equal(one: Document, other: Document) -> bool:
    return parse_resources(one) == parse_resources(other)


def _merge_scheduling(
    request: AdmissionRequest, spec: Document, scheduling: Document
) -> None:
    selector = dict(spec.get("nodeSelector") or {})
    for key, value in sorted((scheduling.get("nodeSelector") or {}).items()):
        if selector.setdefault(key, value) != value:
            raise deny(
                request,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {selector[key]}",
            )
    if selector:
        spec["nodeSelector"] = selector
    extra = scheduling.get("tolerations")
    if extra:
        spec["tolerations"] = merge_tolerations(spec.get("tolerations") or [], extra)


def merge_tolerations(first: list[Document], second: list[Document]) -> list[Document]:
    """Return both lists, without those that another one makes redundant."""
    everything = [*first, *second]
    merged: list[Document] = []
    for index, toleration in enumerate(everything):
        later = everything[index + 1 :]
        if any(_includes(kept, toleration) for kept in merged) or any(
            other != toleration and _includes(other, toleration) for other in later
        ):
            continue
        merged.append(dict(toleration))
    return merged


def _includes(wide: Document, narrow: Document) -> bool:
    """Say whether ``wide`` tolerates all that ``narrow`` does."""
    if wide == narrow:
        return True
    exists = wide.get("operator") == "Exists"
    if wide.get("key") != narrow.get("key") and (wide.get("key") or not exists):
        return False
    if wide.get("effect") and wide.get("effect") != narrow.get("effect"):
        return False
    limit_s = wide.get("tolerationSeconds")
    if wide.get("effect") == "NoExecute" and limit_s is not None:
        span_s = narrow.get("tolerationSeconds")
        if span_s is None or span_s > limit_s:
            return False
    if exists:
        return True
    return (narrow.get("operator") or "Equal") == "Equal" and (
        wide.get("value") or ""
    ) == (narrow.get("value") or "")


PART: Final = AdmissionPlugin(
    name="RuntimeClass",
    after=(
        "NamespaceLifecycle",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "AlwaysPullImages",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "PersistentVolumeClaimResize",
    ),
    mutate=mutate,
    validate=validate,
)
