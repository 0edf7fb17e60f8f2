"""Whether to pull an image, when to try again, and which images may go.

Sources: https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy,
https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
``pkg/kubelet/images`` (v1.36).
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from podyard.api.observed import Image
from podyard.lib.backoff import Backoff
from podyard.lib.values import dataclass

PULL_BACKOFF: Final = Backoff(base_s=10.0, cap_s=300.0)
#: How runtimes say that credentials were refused, or that there were too many requests.
_REFUSALS: Final = (
    *(" 401 ", " 403 ", " 429 ", "401 Unauthorized", "403 Forbidden"),
    *("429 Too Many Requests", "authorization failed", "failed to authorize"),
    *("unauthorized:", "denied:", "token realm", "imagePullProgressTimeout"),
)
#: A failure older than this counts as never having been, seconds.
FORGET_AFTER_S: Final = 2 * PULL_BACKOFF.cap_s


@dataclass(frozen=True, slots=True)
class UsePresent:
    """The image is there, and this Pod may use it."""

    image: Image


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask the registry."""


@dataclass(frozen=True, slots=True)
class WaitForBackoff:
    """A pull failed not long ago; the next may begin in so many seconds."""

    retry_in_s: float


@dataclass(frozen=True, slots=True)
class RefuseNever:
    """The policy forbids to pull what is not there."""


PullDecision: TypeAlias = UsePresent | Pull | WaitForBackoff | RefuseNever


def decide_pull(
    policy: str, *, present: Image | None, verified: bool = True, retry_in_s: float = 0
) -> PullDecision:
    """Decide what to do for an image.

    Args:
        policy: ``Always``, ``IfNotPresent`` or ``Never``.
        present: the image as the runtime has it; not looked at for ``Always``.
        verified: whether the Pod may use a present image without asking the registry.
        retry_in_s: seconds of back-off that are left.
    """
    if policy != "Always" and present is not None and verified:
        return UsePresent(present)
    if policy == "Never":
        return RefuseNever()
    if retry_in_s > 0:
        return WaitForBackoff(retry_in_s)
    return Pull()


@dataclass(frozen=True, slots=True)
class FailedPull:
    """The last failure of a Pod's image.

    Attributes:
        at_s: when, monotonic seconds.
        delay_s: how long no pull is tried after it.
        reason: the waiting reason it gave.
        message: what went wrong.
        credentials: digest of the credentials that were tried.
    """

    at_s: float
    delay_s: float
    reason: str
    message: str
    credentials: bytes = b""

    def retry_in_s(self, now_s: float) -> float:
        """Return how long to wait yet; 0 at the very end of the delay."""
        if self.is_forgotten(now_s):
            return 0.0
        return max(0.0, self.at_s + self.delay_s - now_s)

    def is_forgotten(self, now_s: float) -> bool:
        """Return whether it is too old to count."""
        return now_s - self.at_s > FORGET_AFTER_S


def next_delay_s(last: FailedPull | None, now_s: float) -> float:
    """Return the delay after one more failure."""
    if last is None or last.is_forgotten(now_s):
        return PULL_BACKOFF.first()
    return PULL_BACKOFF.after(last.delay_s)


def is_refusal(error: str) -> bool:
    """Say whether a failed pull's error says that the registry will tell nothing more.

    Asking once more would be one more wrong password, or one more request to who is
    busy.

    Args:
        error: the runtime's text.
    """
    return any(word in error for word in _REFUSALS)


def join_errors(errors: Iterable[tuple[str, str]]) -> str:
    """Return what went wrong over all credentials tried.

    One attempt gives its own text; of several each says whose it is.

    Args:
        errors: the error's text, and the credential it came of (empty: none).
    """
    told = list(errors)
    if len(told) == 1:
        return told[0][0]
    return f"[{', '.join(f'{text} ({whose})' for text, whose in told)}]"


@dataclass(frozen=True, slots=True)
class ImageUse:
    """What the garbage collector remembers of an image.

    Attributes:
        first_seen_s: when it was first seen, monotonic seconds.
        last_used_s: when a container last had it; before ever, minus infinity.
    """

    first_seen_s: float
    last_used_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class GcSettings:
    """When images go (KubeletConfiguration's names).

    Attributes:
        high_percent: usage from which images are removed; 100 switches this off.
        low_percent: usage down to which they are removed.
        min_age_s: an image stays this long after it was first seen.
        max_age_s: an image unused for longer goes in any case; 0 switches this off.
        keep_prefixes: images of such names never go: sandbox images, which runtimes
            before 1.7 of containerd do not tell as pinned, and our own local names,
            which no registry has.
    """

    high_percent: int = 85
    low_percent: int = 80
    min_age_s: float = 120.0
    max_age_s: float = 0.0
    keep_prefixes: tuple[str, ...] = ("podyard.local/", "registry.k8s.io/pause:")


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """The filesystem images are on."""

    capacity_bytes: int
    available_bytes: int

    @property
    def percent(self) -> int:
        """How full it is."""
        return 100 - self.available_bytes * 100 // self.capacity_bytes


def bytes_to_free(usage: DiskUsage, settings: GcSettings) -> int:
    """Return how much has to go; 0 where there is room enough."""
    if settings.high_percent >= 100 or usage.percent < settings.high_percent:
        return 0
    wanted = usage.capacity_bytes * (100 - settings.low_percent) // 100
    return max(0, wanted - usage.available_bytes)


def decide_image_gc(
    images: Iterable[Image],
    uses: Mapping[str, ImageUse],
    in_use: frozenset[str],
    *,
    settings: GcSettings,
    now_s: float,
) -> tuple[Image, ...]:
    """Return the images that may go, the first to go first.

    Never one that a container has, dead or alive, that is pinned, or that is
    younger than the least age.

    Args:
        images: all images.
        uses: what is known of them, by id.
        in_use: ids of images that containers have.
        settings: the ages.
        now_s: monotonic seconds.
    """
    candidates = [
        image
        for image in images
        if not image.pinned
        and not any(tag.startswith(settings.keep_prefixes) for tag in image.repo_tags)
        and image.id not in in_use
        and image.id in uses
        and now_s - uses[image.id].first_seen_s >= settings.min_age_s
    ]
    return tuple(
        sorted(
            candidates,
            key=lambda i: (uses[i.id].last_used_s, uses[i.id].first_seen_s),
        )
    )


def too_old(use: ImageUse, *, settings: GcSettings, now_s: float) -> bool:
    """Return whether an unused image has been so for longer than allowed."""
    if settings.max_age_s <= 0:
        return False
    return now_s - max(use.last_used_s, use.first_seen_s) > settings.max_age_s


def used_ids(images: Iterable[Image], names: Iterable[str]) -> frozenset[str]:
    """Return the ids of the images that containers name, by id, tag or digest."""
    wanted = set(names)
    return frozenset(
        image.id
        for image in images
        if image.id in wanted
        or not wanted.isdisjoint(image.repo_tags)
        or not wanted.isdisjoint(image.repo_digests)
    )
