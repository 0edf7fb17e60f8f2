"""Makes images be on the node: policy, back-off, queue, credentials, events.

A present image costs one question to the runtime. Equal pulls in flight (same image,
same credentials) are made once, and end when the last Pod that waits has gone.

Source: https://kubernetes.io/docs/concepts/containers/images/ and
``pkg/kubelet/images`` (v1.36).
"""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import field
from typing import Final, Literal, Protocol, assert_never

import structlog

from podyard.api.core_v1 import Container, Pod, Volume
from podyard.api.documents import Document
from podyard.api.go_duration import go_duration
from podyard.api.go_text import quote
from podyard.api.image_ref import ImageRefError, apply_default_tag, repository_name
from podyard.api.observed import Image
from podyard.api.runtime import SandboxConfig
from podyard.cri.services import CRIError, ImageService
from podyard.lib.clock import Clock
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import auth_hash
from podyard.node.credentials.manager import LookedUp
from podyard.node.images.access.records import ImageAccess
from podyard.node.images.build import (
    build_attempts,
    build_candidates_record,
    build_progress_text,
    build_wish,
    repository_digest,
)
from podyard.node.images.decide import (
    FailedPull,
    Pull,
    RefuseNever,
    UsePresent,
    WaitForBackoff,
    decide_pull,
    is_refusal,
    join_errors,
    next_delay_s,
)
from podyard.node.images.parts import (
    EnsuredImage,
    ImageError,
    ProgressSource,
    PullProgress,
    RemoteDigests,
)
from podyard.node.images.pulls import (
    ImageSettings,
    Outcome,
    Puller,
    PullOrder,
    error_text,
)
from podyard.node.images.records import PullRecords
from podyard.store.node_journal import NodeJournal

log = structlog.get_logger()

ERR_IMAGE_PULL: Final = "ErrImagePull"
IMAGE_PULL_BACK_OFF: Final = "ImagePullBackOff"
ERR_IMAGE_NEVER_PULL: Final = "ErrImageNeverPull"
INVALID_IMAGE_NAME: Final = "InvalidImageName"
IMAGE_INSPECT_ERROR: Final = "ImageInspectError"
REGISTRY_UNAVAILABLE: Final = "RegistryUnavailable"
SIGNATURE_VALIDATION_FAILED: Final = "SignatureValidationFailed"
#: A failed pull shows its error so long, then that it waits for the next, seconds.
SHOW_BACK_OFF_S: Final = 3.0
#: How often a Pod's status tells how far its pull is, seconds.
TELL_EVERY_S: Final = 5.0
#: Errors of a runtime that begin with such a word have a reason of their own.
_SPECIAL: Final = {
    REGISTRY_UNAVAILABLE: "because the registry is unavailable",
    SIGNATURE_VALIDATION_FAILED: "because the signature validation failed",
}


class ImagePullBackOffError(ImageError):
    """Too soon after a failed pull.

    Attributes:
        retry_in_s: when the next pull may begin, seconds from now.
    """

    def __init__(self, message: str, *, retry_in_s: float) -> None:
        super().__init__(IMAGE_PULL_BACK_OFF, message, look_in_s=retry_in_s)
        self.retry_in_s = retry_in_s


class Credentials(Protocol):
    """Registry credentials (``node/credentials``)."""

    async def look_up(self, pod: Pod, repository: str) -> LookedUp:
        """Return what to try for a Pod's image, from every source."""


class Events(Protocol):
    """Kubernetes Events; never waits, never fails."""

    def event(
        self,
        document: Document,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Tell users something about an object."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """An image somebody in a Pod wants."""

    pod: Pod
    image: str
    policy: str
    field_path: str
    sandbox: SandboxConfig | None
    handler: str

    @property
    def key(self) -> str:
        return f"{self.pod.uid}_{self.image}"

    def to_record(self) -> Document:
        return build_wish(self.pod, self.image, self.policy, self.field_path)


@dataclass(slots=True)
class _Meter:
    """How far a pull is, and when that may be told again."""

    seen: PullProgress = field(default_factory=PullProgress)
    tell_at_s: float = -math.inf


@dataclass(slots=True)
class _Memory:
    """Failures by Pod and image, and what was already said of credentials."""

    failed: dict[str, FailedPull] = field(default_factory=dict)
    told: dict[str, frozenset[str]] = field(default_factory=dict)

    def prune(self, now_s: float) -> None:
        old = [key for key, last in self.failed.items() if last.is_forgotten(now_s)]
        for key in old:
            del self.failed[key]

    def forget_pod(self, uid: str) -> None:
        self.told.pop(uid, None)
        for key in [key for key in self.failed if key.startswith(f"{uid}_")]:
            del self.failed[key]


class ImageManager:
    """Makes images be there, Pod by Pod.

    Args:
        images: the runtime.
        credentials: finds registry credentials.
        events: tells users.
        clock: times back-off and pulls.
        settings: how images are pulled.
        journal: keeps records of pulls; ``None`` keeps none.
        access: knows who may use a present image; ``None`` lets everybody.
        progress: tells how far pulls are; ``None`` where nobody does.
        remote: asked what a registry has when a pull failed; ``None`` asks nobody.
    """

    def __init__(  # noqa: PLR0913 - a seam each, wired in one place
        self,
        images: ImageService,
        credentials: Credentials,
        events: Events,
        clock: Clock,
        *,
        settings: ImageSettings | None = None,
        journal: NodeJournal | None = None,
        access: ImageAccess | None = None,
        progress: ProgressSource | None = None,
        remote: RemoteDigests | None = None,
    ) -> None:
        self._remote = remote
        self._meters: dict[str, _Meter] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._images = images
        self._access = access
        self._credentials = credentials
        self._events = events
        self._clock = clock
        self._records = PullRecords(journal, images, clock)
        self._puller = Puller(images, clock, settings or ImageSettings(), progress)
        self._memory = _Memory()

    async def ensure_image(
        self, pod: Pod, container: Container, sandbox: SandboxConfig, handler: str
    ) -> EnsuredImage:
        """Make the container's image be there and allowed, by its pull policy.

        Emits its own events, also the ``Error: …`` that follows each failure.
        Cancelling ends this caller's wait; the pull ends with the last one.

        Raises:
            ImageError: not now, or never.
        """
        wish = _Wish(
            pod,
            container.image,
            container.image_pull_policy,
            pod.field_path(container.name),
            sandbox,
            handler,
        )
        return await self._ensure(wish)

    async def ensure_volume_image(self, pod: Pod, volume: Volume) -> str:
        """Make an image volume's image be there; return its reference.

        Raises:
            ImageError: not now, or never.
        """
        reference = str(volume.spec.get("reference") or "")
        policy = str(volume.spec.get("pullPolicy") or "IfNotPresent")
        wish = _Wish(pod, reference, policy, "", None, "")
        return (await self._ensure(wish)).ref

    def forget_pod(self, uid: str) -> None:
        """Drop what is remembered of a Pod that is gone."""
        self._memory.forget_pod(uid)
        self._records.forget_pod(uid)

    def retry_in_s(self, uid: str) -> float | None:
        """Return when a Pod's next pull may begin; ``None`` where none waits."""
        now_s = self._clock.monotonic_s()
        waits = [
            last.retry_in_s(now_s)
            for key, last in self._memory.failed.items()
            if key.startswith(f"{uid}_")
        ]
        return min((wait for wait in waits if wait > 0), default=None)

    def pods_in_back_off(self) -> frozenset[str]:
        """Return the uids of Pods that wait before their next pull."""
        now_s = self._clock.monotonic_s()
        return frozenset(
            key.partition("_")[0]
            for key, last in self._memory.failed.items()
            if last.retry_in_s(now_s) > 0
        )

    def on_progress(self, listener: Callable[[str], None]) -> None:
        """Have ``listener(uid)`` called now and then while a Pod's pull goes on."""
        self._listeners.append(listener)

    def progress_of(self, uid: str, image: str) -> str:
        """Return how far a Pod's pull is, for people; empty where there is none."""
        meter = self._meters.get(f"{uid}_{image}")
        if meter is None or meter.seen.total_bytes == 0:
            return ""
        return build_progress_text(
            image,
            meter.seen.done_bytes,
            meter.seen.total_bytes,
            others=self._puller.under_way - 1,
        )

    @property
    def pulls_in_flight(self) -> int:
        """How many different pulls are going on or wait for their turn."""
        return len(self._puller)

    async def _ensure(self, wish: _Wish) -> EnsuredImage:
        try:
            image = apply_default_tag(wish.image)
        except ImageRefError as error:
            text = f"Failed to apply default image tag {quote(wish.image)}: {error}"
            await self._note(wish, INVALID_IMAGE_NAME, error=text)
            raise self._fail(
                wish, INVALID_IMAGE_NAME, text, event="InspectFailed"
            ) from error
        present = await self._look(wish, image)
        verified, looked_up = True, None
        if present is not None:
            verified, looked_up = await self._verify(wish, image, present)
        last = self._memory.failed.get(wish.key)
        retry_in_s = last.retry_in_s(self._clock.monotonic_s()) if last else 0.0
        match decide_pull(
            wish.policy, present=present, verified=verified, retry_in_s=retry_in_s
        ):
            case UsePresent(found):
                self._tell(
                    wish,
                    "Pulled",
                    f"Container image {quote(wish.image)} already present on machine "
                    "and can be accessed by the pod",
                )
                digest = repository_digest(found, repository_name(image))
                await self._note(
                    wish, "Present", localImageID=found.id, localDigest=digest
                )
                return EnsuredImage(found.id, found)
            case RefuseNever():
                text = (
                    f"Container image {quote(wish.image)} is not present with pull "
                    "policy of Never"
                )
                await self._note(wish, ERR_IMAGE_NEVER_PULL, error=text)
                raise self._fail(
                    wish, ERR_IMAGE_NEVER_PULL, text, event=ERR_IMAGE_NEVER_PULL
                )
            case WaitForBackoff(wait_s):
                assert last is not None
                looked_up = looked_up or await self._look_up(wish, image)
                return await self._wait_or_pull(wish, image, last, wait_s, looked_up)
            case Pull():
                looked_up = looked_up or await self._look_up(wish, image)
                return await self._pull(wish, image, looked_up)
            case unknown:
                assert_never(unknown)

    async def _look(self, wish: _Wish, image: str) -> Image | None:
        """Return the present image; for ``Always`` it does not matter."""
        if wish.policy == "Always":
            return None
        try:
            return await self._images.image_status(image)
        except CRIError as error:
            text = f'Failed to inspect image "": {error_text(error)}'
            raise self._fail(
                wish, IMAGE_INSPECT_ERROR, text, event="InspectFailed"
            ) from error

    async def _verify(
        self, wish: _Wish, image: str, present: Image
    ) -> tuple[bool, LookedUp | None]:
        """Say whether the Pod may use a present image, and what was looked up for it.

        Credentials are looked up only where the answer depends on them.
        """
        access, repository = self._access, repository_name(image)
        if access is None or not access.needs_verification(
            wish.image, image, present.id
        ):
            return True, None
        if access.opens_for_all(present.id, repository):
            return True, None
        found = await self._look_up(wish, image)
        return await access.may_use(present.id, repository, found.credentials), found

    async def _wait_or_pull(
        self, wish: _Wish, image: str, last: FailedPull, wait_s: float, found: LookedUp
    ) -> EnsuredImage:
        """Refuse because of back-off, unless the credentials have changed since."""
        if _digest(found) != last.credentials:
            self._tell(
                wish,
                "BackOff",
                f"Back-off pulling image {quote(wish.image)} ended early: its "
                "registry credentials have changed",
            )
            return await self._pull(wish, image, found)
        text = f"Back-off pulling image {quote(wish.image)}"
        self._tell(wish, "BackOff", text)
        self._tell_error(wish, IMAGE_PULL_BACK_OFF)
        raise ImagePullBackOffError(
            f"{text}: {last.reason}: {last.message}", retry_in_s=wait_s
        )

    async def _look_up(self, wish: _Wish, image: str) -> LookedUp:
        found = await self._credentials.look_up(wish.pod, repository_name(image))
        messages = frozenset(problem.message for problem in found.problems)
        if messages != self._memory.told.get(wish.pod.uid, frozenset()):
            self._memory.told[wish.pod.uid] = messages
            for problem in found.problems:
                self._events.event(
                    wish.pod.document, "Warning", problem.reason, problem.message
                )
        return found

    async def _pull(self, wish: _Wish, image: str, found: LookedUp) -> EnsuredImage:
        began_s = self._clock.monotonic_s()
        self._tell(wish, "Pulling", f"Pulling image {quote(wish.image)}")
        record = await self._records.open(
            wish.pod.uid,
            wish.to_record()
            | build_candidates_record(
                found.candidates,
                unrelated=found.unrelated,
                problems=(problem.message for problem in found.problems),
            ),
            image=image,
            repository=repository_name(image),
        )
        order = PullOrder(image, found.credentials, wish.sandbox, wish.handler)
        try:
            async with self._pulling(image):
                with self._measured(wish) as hear:
                    outcome = await self._puller.pull(order, hear)
                await self._grant(image, outcome, found)
        except asyncio.CancelledError:
            await self._records.close(record, {"result": "cancelled"})
            raise
        except OSError as failure:
            text = (
                f"Failed to record image pull intent for container image "
                f"{quote(wish.image)}: {failure.strerror}"
            )
            await self._records.close(record, {"result": ERR_IMAGE_PULL, "error": text})
            raise self._fail(wish, ERR_IMAGE_PULL, text, event="Failed") from failure
        now_s = self._clock.monotonic_s()
        result: Document = {
            "attempts": build_attempts(one.to_record() for one in outcome.attempts),
            "tookSeconds": round(outcome.took_s, 3),
            "waitedSeconds": round(now_s - began_s - outcome.took_s, 3),
        }
        if outcome.image is None:
            self._memory.prune(now_s)
            reason, message, error = _describe_failure(wish, outcome)
            delay_s = next_delay_s(self._memory.failed.get(wish.key), now_s)
            self._memory.failed[wish.key] = FailedPull(
                now_s, delay_s, reason, message, _digest(found)
            )
            result |= {"result": reason, "error": error}
            self._events.event(
                wish.pod.document,
                "Warning",
                "Failed",
                f"Failed to pull image {quote(wish.image)}: {error}",
                field_path=wish.field_path,
            )
            self._tell_error(wish, reason)
            digest = await self._remote_digest(image, outcome, found)
            if digest:
                result["remoteDigest"] = digest
            await self._records.close(record, result, retry_in_s=delay_s)
            raise ImageError(reason, message, look_in_s=SHOW_BACK_OFF_S)
        self._memory.prune(now_s)
        result |= {
            "result": "Pulled",
            "imageID": outcome.image.id,
            "remoteDigest": repository_digest(outcome.image, repository_name(image)),
            "sizeBytes": outcome.image.size_bytes,
        }
        await self._records.close(record, result)
        self._tell(
            wish,
            "Pulled",
            f"Successfully pulled image {quote(wish.image)} in "
            f"{_duration(outcome.took_s)} ({_duration(now_s - began_s)} including "
            f"waiting). Image size: {outcome.image.size_bytes} bytes.",
        )
        return EnsuredImage(outcome.ref, outcome.image)

    async def _remote_digest(
        self, image: str, outcome: Outcome, found: LookedUp
    ) -> str:
        """Return what a registry has under a name whose pull failed, if it tells."""
        if self._remote is None:
            return ""
        auths = tuple(one.auth for one in found.credentials) or (None,)
        for attempt, auth in zip(outcome.attempts, auths, strict=False):
            if not is_refusal(attempt.error):
                return await self._remote.remote_digest(image, auth)
        return ""

    @contextmanager
    def _measured(self, wish: _Wish) -> Iterator[Callable[[PullProgress], None]]:
        """Keep how far the pull of this wish is, and tell listeners now and then."""
        meter = self._meters[wish.key] = _Meter()

        def hear(seen: PullProgress) -> None:
            meter.seen = seen
            now_s = self._clock.monotonic_s()
            if now_s < meter.tell_at_s:
                return
            meter.tell_at_s = now_s + TELL_EVERY_S
            for listener in self._listeners:
                listener(wish.pod.uid)

        try:
            yield hear
        finally:
            if self._meters.get(wish.key) is meter:
                del self._meters[wish.key]

    @asynccontextmanager
    async def _pulling(self, image: str) -> AsyncGenerator[None, None]:
        if self._access is None:
            yield
            return
        async with self._access.pulling(image):
            yield

    async def _grant(self, image: str, outcome: Outcome, found: LookedUp) -> None:
        """Write down who was given an image.

        The pull may have been another Pod's, with equal credentials: whose Secret it
        was is said by our own, the one in the same place.
        """
        if self._access is None or outcome.image is None:
            return
        used = len(outcome.attempts) - 1
        credential = found.credentials[used] if found.credentials else None
        await self._access.pulled(
            image, outcome.image.id, repository_name(image), credential
        )

    def _tell(self, wish: _Wish, reason: str, message: str) -> None:
        self._events.event(
            wish.pod.document, "Normal", reason, message, field_path=wish.field_path
        )

    def _tell_error(self, wish: _Wish, reason: str) -> None:
        self._events.event(
            wish.pod.document,
            "Warning",
            "Failed",
            f"Error: {reason}",
            field_path=wish.field_path,
        )

    def _fail(
        self, wish: _Wish, reason: str, message: str, *, event: str
    ) -> ImageError:
        self._events.event(
            wish.pod.document, "Warning", event, message, field_path=wish.field_path
        )
        self._tell_error(wish, reason)
        return ImageError(reason, message)

    async def _note(self, wish: _Wish, result: str, **more: str) -> None:
        """Write down a decision that needed no pull."""
        await self._records.note(
            wish.pod.uid, wish.to_record() | {"result": result} | more
        )


def _describe_failure(wish: _Wish, outcome: Outcome) -> tuple[str, str, str]:
    """Return the waiting reason and message, and the plain error."""
    error = join_errors(
        (attempt.error, str(attempt.credential or "")) for attempt in outcome.attempts
    )
    for reason, because in _SPECIAL.items():
        if error.startswith(reason):
            rest = error.removeprefix(reason)
            message = f"image pull failed for {wish.image} {because}{rest}"
            return reason, message, error
    return ERR_IMAGE_PULL, error, error


def _digest(found: LookedUp) -> bytes:
    digest = hashlib.sha256()
    for credential in found.credentials:
        if not credential.fleeting:
            digest.update(auth_hash(credential.auth).encode())
        digest.update(f"{credential.origin} {credential.key}".encode())
    return digest.digest()


def _duration(seconds: float) -> str:
    return go_duration(math.floor(max(seconds, 0.0) * 1000) / 1000)
