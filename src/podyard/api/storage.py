"""What claims, volumes and storage classes say of one another. Pure.

Source: https://kubernetes.io/docs/concepts/storage/persistent-volumes/ and
kubernetes ``pkg/controller/volume/persistentvolume`` (v1.36).
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from podyard.api.documents import Document
from podyard.api.labels import selector_from_object
from podyard.api.predicates import matches_node_selector_term
from podyard.api.quantity import parse_quantity
from podyard.lib.values import dataclass

#: The built-in provisioner, and the class that asks for it.
PROVISIONER: Final = "podyard.dev/local-path"
CLASS_NAME: Final = "local-path"
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"

#: Keep what is in use.
CLAIM_PROTECTION: Final = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION: Final = "kubernetes.io/pv-protection"
#: Keeps a volume until its node has removed its data.
DATA_FINALIZER: Final = "podyard.dev/local-path"

#: On a claim: the node its first Pod goes to.
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
#: On a claim: it has been bound completely, and whether we chose its volume.
BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
#: On a volume: who made it.
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
#: On a claim: who is to make its volume.
STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
#: On a class: claims that name none get it.
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
#: On a Node: the directory it keeps volumes in.
VOLUMES_DIR: Final = "podyard.dev/volumes-dir"
#: On a volume: its node, so that the node can watch its own alone.
NODE_LABEL: Final = "podyard.dev/node"
_MOST_LABEL: Final = 63
_MOST_NAME: Final = 200


def node_label(node_name: str) -> str:
    """Return the value of :data:`NODE_LABEL` for a node, fit for a label."""
    if len(node_name) <= _MOST_LABEL:
        return node_name
    return hashlib.sha256(node_name.encode()).hexdigest()[:_MOST_LABEL]


def claim_of(volume: Document, pod_name: str) -> str:
    """Return the name of the claim behind a Pod's volume, empty if none is.

    Args:
        volume: a volume of a Pod spec, as a document.
        pod_name: the Pod's name; the claim of an ephemeral volume is named after it.
    """
    source = volume.get("persistentVolumeClaim")
    if source is not None:
        return str(source.get("claimName") or "")
    if volume.get("ephemeral") is not None:
        return f"{pod_name}-{volume.get('name')}"
    return ""


def claims_of(pod: Document) -> tuple[str, ...]:
    """Return the names of the claims a Pod uses."""
    name = str(pod["metadata"].get("name") or "")
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    found = (claim_of(volume, name) for volume in volumes)
    return tuple(dict.fromkeys(claim for claim in found if claim))


def class_of(document: Document) -> str:
    """Return the class a claim asks for or a volume is of; empty is none."""
    return str((document.get("spec") or {}).get("storageClassName") or "")


def default_class(classes: Iterable[Document]) -> Document | None:
    """Return the class for claims that name none: the newest, then by name."""
    marked = [
        one
        for one in classes
        if (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    marked.sort(key=lambda one: str(one["metadata"]["name"]))
    return max(
        marked,
        key=lambda one: str(one["metadata"].get("creationTimestamp") or ""),
        default=None,
    )


def waits_for_consumer(storage_class: Document | None) -> bool:
    """Say whether a claim of a class is bound only for its first Pod."""
    mode = (storage_class or {}).get("volumeBindingMode")
    return mode == "WaitForFirstConsumer"


def is_claimed_by(volume: Document, claim: Document) -> bool:
    """Say whether a volume is for a claim, by name and, where it is said, by uid."""
    reference = (volume.get("spec") or {}).get("claimRef") or {}
    metadata = claim["metadata"]
    named = (reference.get("namespace"), reference.get("name"))
    if named != (metadata.get("namespace"), metadata.get("name")):
        return False
    return reference.get("uid") in {None, "", metadata.get("uid")}


def is_bound(claim: Document, volume: Document | None) -> bool:
    """Say whether claim and volume name each other."""
    if volume is None or not is_claimed_by(volume, claim):
        return False
    if (claim.get("spec") or {}).get("volumeName") != volume["metadata"]["name"]:
        return False
    annotations = claim["metadata"].get("annotations") or {}
    return BIND_COMPLETED in annotations


def fits_node(volume: Document, node: Document) -> bool:
    """Say whether a volume can be used on a node."""
    affinity = (volume.get("spec") or {}).get("nodeAffinity") or {}
    required = affinity.get("required")
    if required is None:
        return True
    terms = required.get("nodeSelectorTerms") or ()
    return any(matches_node_selector_term(term, node) for term in terms)


def suits(volume: Document, claim: Document) -> bool:
    """Say whether a volume nobody has is what a claim asks for."""
    spec, wanted = volume.get("spec") or {}, claim.get("spec") or {}
    if volume["metadata"].get("deletionTimestamp"):
        return False
    if spec.get("claimRef"):
        return is_claimed_by(volume, claim)
    if (volume.get("status") or {}).get("phase") != "Available":
        return False
    if class_of(volume) != class_of(claim):
        return False
    modes = {spec.get("volumeMode"), wanted.get("volumeMode")}
    if len(modes) > 1 or not set(wanted.get("accessModes") or ()) <= set(
        spec.get("accessModes") or ()
    ):
        return False
    selector = wanted.get("selector")
    if selector is not None and not selector_from_object(selector).matches(
        volume["metadata"].get("labels") or {}
    ):
        return False
    return _size(spec.get("capacity")) >= _size(
        (wanted.get("resources") or {}).get("requests")
    )


def _size(amounts: Document | None) -> int:
    return parse_quantity((amounts or {}).get("storage") or 0).value


def find_volume(
    claim: Document, volumes: Iterable[Document], node: Document | None = None
) -> Document | None:
    """Return the volume to bind a claim to: one kept for it, then the smallest.

    Args:
        claim: an unbound claim.
        volumes: all volumes.
        node: where it has to be usable; ``None`` is anywhere.
    """
    fit = [
        volume
        for volume in volumes
        if suits(volume, claim) and (node is None or fits_node(volume, node))
    ]
    return min(
        fit,
        key=lambda volume: (
            not volume["spec"].get("claimRef"),
            _size(volume["spec"].get("capacity")),
            str(volume["metadata"]["name"]),
        ),
        default=None,
    )


def data_path(volumes_dir: str, claim: Document) -> str:
    """Return the directory of a claim's data on a node."""
    metadata = claim["metadata"]
    name = str(metadata["name"])[:_MOST_NAME]
    return f"{volumes_dir}/{metadata['namespace']}/{name}-{metadata['uid']}"


@dataclass(frozen=True, slots=True)
class PodClaim:
    """One claim of a Pod, with what is known of it.

    Attributes:
        name: the claim's name.
        claim: the claim; ``None`` where it does not exist.
        volume: the volume it names.
        storage_class: its class.
        users: nodes where another Pod uses it.
    """

    name: str
    claim: Document | None
    volume: Document | None = None
    storage_class: Document | None = None
    users: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PodStorage:
    """All claims of a Pod, and the volumes that nobody has yet."""

    claims: tuple[PodClaim, ...] = ()
    volumes: tuple[Document, ...] = ()
