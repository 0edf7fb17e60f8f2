"""Pods whose images come from a registry of the test, and what they wait for."""

from collections.abc import Callable

from podyard.api.documents import Document
from podyard.containerd.archives import ImageArchive
from podyard.containerd.own_images import build_archive, busybox_image
from support.containerd import APPLETS, find_busybox
from support.manifests import container, pod


def runnable_image(name: str, marker: str) -> ImageArchive:
    """Return an image that runs, with an id of its own."""
    spec = busybox_image(find_busybox(), APPLETS.split(), name=name)
    config = {**spec.config, "Labels": {"marker": marker}}
    return build_archive(type(spec)(spec.name, spec.files, config))


def private_pod(name: str, image: str, **spec: object) -> Document:
    """Return a Pod that runs an image; ``policy`` is its pull policy."""
    fields = {"image": image, "imagePullPolicy": spec.pop("policy", "IfNotPresent")}
    script = "trap 'exit 0' TERM; sleep 3600 & wait"
    return pod(name, container(script, **fields), **spec)


def is_running(document: Document) -> bool:
    return document.get("status", {}).get("phase") == "Running"


def waiting_of(document: Document) -> Document:
    """Return reason and message of what the first container waits for."""
    statuses = document.get("status", {}).get("containerStatuses") or [{}]
    found: Document = statuses[0].get("state", {}).get("waiting") or {}
    return found


def waits_with(*reasons: str) -> Callable[[Document], bool]:
    """Return a condition: the first container waits for one of these reasons."""
    return lambda document: waiting_of(document).get("reason") in reasons


FAILING = waits_with("ErrImagePull", "ImagePullBackOff")
