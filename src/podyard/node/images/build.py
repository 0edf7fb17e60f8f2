"""What is written down of pulls. Pure; never a secret value.

Source: https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy
"""

from collections.abc import Iterable

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.go_text import quote
from podyard.api.image_ref import (
    ImageRefError,
    default_pull_policy,
    parse_image_ref,
)
from podyard.api.observed import Image
from podyard.node.credentials.build import Candidate


def build_progress_text(
    image: str, done_bytes: int, total_bytes: int, *, others: int
) -> str:
    """Return how far a pull is, as people see it.

    Args:
        image: as it is written in the Pod.
        done_bytes: bytes that are here.
        total_bytes: bytes known to be needed.
        others: how many other pulls the bytes may be of, too.
    """
    text = (
        f"Pulling image {quote(image)}: {_mebibytes(done_bytes)} of "
        f"{_mebibytes(total_bytes)} MiB"
    )
    if not others:
        return text
    return f"{text} (with {others} other {'pulls' if others > 1 else 'pull'})"


def _mebibytes(size: int) -> str:
    return f"{size / 1048576:.1f}"


def explain_policy(image: str, policy: str) -> str:
    """Return the rule that gave a container its pull policy.

    The API server fills the policy in when an object is created, so a policy that is
    the default may also have been written down by somebody.
    """
    default = default_pull_policy(image)
    why = _why_default(image)
    if policy == default:
        return f"{policy} is the default for {why}"
    said = "set in the Pod"
    if policy == "Always":
        said += ", or by the AlwaysPullImages admission plugin"
    return f"{policy} is {said}; the default for {why} is {default}"


def explain_pull(policy: str, *, present: bool) -> str:
    """Return why the registry is asked.

    Args:
        policy: the pull policy.
        present: whether the image was on the node.
    """
    if policy == "Always":
        return "the policy has the registry asked each time"
    if present:
        return "the image is here, but this Pod must show that it may pull it"
    return "the image is not here"


def _why_default(image: str) -> str:
    try:
        ref = parse_image_ref(image)
    except ImageRefError:
        return "a name that is no image reference"
    if ref.digest:
        return "an image with a digest"
    if not ref.tag:
        return "an image without a tag (:latest is meant)"
    return f"the tag :{ref.tag}"


def repository_digest(image: Image | None, repository: str) -> str:
    """Return the digest an image has under a repository; empty where unknown."""
    for known in image.repo_digests if image else ():
        name, _, digest = known.partition("@")
        if name == repository:
            return digest
    return ""


def build_wish(pod: Pod, image: str, policy: str, field_path: str) -> Document:
    """Return what a record says of what is wanted."""
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "image": image,
        "policy": policy,
        "policyRule": explain_policy(image, policy),
        "fieldPath": field_path,
    }


def build_candidates_record(
    candidates: Iterable[Candidate], *, unrelated: int, problems: Iterable[str]
) -> Document:
    """Return what a record says of the credentials that were looked at.

    Args:
        candidates: those that fit, and those that nearly do.
        unrelated: how many more are for other registries.
        problems: sources that gave nothing and should have.
    """
    return {
        "candidates": [
            {
                "origin": candidate.origin,
                "key": candidate.key,
                "match": candidate.match.verdict,
                "why": candidate.match.why,
                "order": candidate.order,
            }
            for candidate in candidates
        ],
        "unrelatedCredentials": unrelated,
        "problems": list(problems),
    }


def build_attempts(attempts: Iterable[tuple[str, str, str]]) -> list[Document]:
    """Return what a record says of the attempts.

    Args:
        attempts: of each its credential's origin and key, and the answer of the
            registry through the runtime where it failed.
    """
    return [
        {
            "order": number,
            "origin": origin or "anonymous",
            "key": key,
            "outcome": "failed" if error else "accepted",
            "error": error,
        }
        for number, (origin, key, error) in enumerate(attempts, 1)
    ]
