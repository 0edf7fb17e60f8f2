"""What is written down of pulls, and that it holds no secret."""

import json
from dataclasses import dataclass, field

import pytest

from podyard.api.core_v1 import Pod
from podyard.api.observed import Image
from podyard.api.runtime import ImageAuth, SandboxConfig
from podyard.cri.services import CRIError
from podyard.node.credentials.build import build_candidates
from podyard.node.credentials.decide import Credential
from podyard.node.credentials.manager import LookedUp
from podyard.node.images.build import explain_policy, explain_pull, repository_digest
from podyard.node.images.manager import ImageManager
from podyard.node.images.parts import ImageError
from support.pods import KeptEvents, LoopClock, MemoryJournal

PASSWORD = "hunter2-canary"
DIGEST = "sha256:" + "a" * 64
NEW_DIGEST = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("image", "policy", "text"),
    [
        ("a:1", "IfNotPresent", "IfNotPresent is the default for the tag :1"),
        ("a:latest", "Always", "Always is the default for the tag :latest"),
        (
            "a",
            "Always",
            "Always is the default for an image without a tag (:latest is meant)",
        ),
        (
            f"a@{DIGEST}",
            "IfNotPresent",
            "IfNotPresent is the default for an image with a digest",
        ),
        (
            "a:1",
            "Always",
            (
                "Always is set in the Pod, or by the AlwaysPullImages admission "
                "plugin; the default for the tag :1 is IfNotPresent"
            ),
        ),
        (
            "a",
            "Never",
            (
                "Never is set in the Pod; the default for an image without a tag "
                "(:latest is meant) is Always"
            ),
        ),
        (
            "A!",
            "IfNotPresent",
            "IfNotPresent is the default for a name that is no image reference",
        ),
    ],
)
def test_the_rule_behind_a_policy_is_told(image, policy, text):
    assert explain_policy(image, policy) == text


@pytest.mark.parametrize(
    ("policy", "present", "word"),
    [
        ("Always", True, "each time"),
        ("Always", False, "each time"),
        ("IfNotPresent", False, "not here"),
        ("IfNotPresent", True, "must show"),
        ("Never", True, "must show"),
    ],
)
def test_why_the_registry_is_asked_is_told(policy, present, word):
    assert word in explain_pull(policy, present=present)


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        pytest.param(None, "", id="absent"),
        pytest.param(Image("x"), "", id="no-digest"),
        pytest.param(
            Image("x", repo_digests=(f"b/c@{NEW_DIGEST}", f"a/b@{DIGEST}")),
            DIGEST,
            id="of-that-repository",
        ),
    ],
)
def test_a_digest_is_that_of_the_repository(image, digest):
    assert repository_digest(image, "a/b") == digest


@dataclass
class Registry:
    """A runtime whose pulls do as the script says: an error, or an image."""

    script: list = field(default_factory=list)
    here: Image | None = None

    async def image_status(self, image):
        return self.here

    async def pull_image(self, image, *, auth, sandbox=None, handler=""):
        said = self.script.pop(0)
        if isinstance(said, str):
            raise CRIError("PullImage", "UNKNOWN", said)
        self.here = said
        return said.id


@dataclass
class Found:
    credentials: tuple[Credential, ...] = ()

    async def look_up(self, pod, repository):
        candidates, unrelated = build_candidates(
            (*self.credentials, Credential(ImageAuth(), "other.example", "file")),
            self.credentials,
            repository,
            semantics="documented",
        )
        return LookedUp(self.credentials, (), candidates, unrelated)


def pod(policy="Always"):
    container = {"name": "c", "image": "reg.test/app:1", "imagePullPolicy": policy}
    return Pod.of(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [container]},
        }
    )


@dataclass
class Bench:
    registry: Registry
    journal: MemoryJournal
    events: KeptEvents
    manager: ImageManager

    async def ensure(self, policy="Always"):
        of = pod(policy)
        sandbox = SandboxConfig("p", "ns", "u", 0)
        return await self.manager.ensure_image(of, of.spec.containers[0], sandbox, "")

    async def records(self):
        return [record.body for record in await self.journal.list("u", kind="pull")]


@dataclass
class Remote:
    """A registry that tells a digest to whom it knows."""

    knows: ImageAuth | None
    asked: list = field(default_factory=list)

    async def remote_digest(self, image, auth):
        self.asked.append(auth)
        return NEW_DIGEST if auth == self.knows else ""


def bench(*script, here=None, credentials=(), remote=None):
    registry, journal, events = Registry(list(script), here), MemoryJournal(), None
    events = KeptEvents()
    manager = ImageManager(
        registry,
        Found(credentials),
        events,
        LoopClock(),
        journal=journal,
        remote=remote,
    )
    return Bench(registry, journal, events, manager)


ALICE = Credential(ImageAuth(username="alice", password=PASSWORD), "reg.test", "file f")
BOB = Credential(
    ImageAuth(username="bob", password="bobs-canary"), "reg.test", "Secret s"
)


async def test_a_pull_is_recorded_with_both_digests_and_what_was_tried():
    old = Image("sha256:old", repo_digests=(f"reg.test/app@{DIGEST}",))
    new = Image("sha256:new", repo_digests=(f"reg.test/app@{NEW_DIGEST}",))
    b = bench(f"401 for {PASSWORD}", new, here=old, credentials=(ALICE, BOB))

    await b.ensure()

    (record,) = await b.records()
    assert (record["localDigest"], record["remoteDigest"]) == (DIGEST, NEW_DIGEST)
    assert [(c["origin"], c["order"]) for c in record["candidates"]] == [
        ("file f", 1),
        ("Secret s", 2),
    ]
    assert record["unrelatedCredentials"] == 1
    assert [(a["origin"], a["outcome"], a["error"]) for a in record["attempts"]] == [
        ("file f", "failed", "401 for ***"),
        ("Secret s", "accepted", ""),
    ]
    assert record["result"] == "Pulled"
    assert record["policyRule"].startswith("Always is set in the Pod")


async def test_a_failed_pull_says_when_the_next_one_is():
    b = bench(f"no: {PASSWORD}", credentials=(ALICE,))

    with pytest.raises(ImageError) as caught:
        await b.ensure()

    (record,) = await b.records()
    assert (record["result"], record["retryInSeconds"]) == ("ErrImagePull", 10.0)
    assert record["nextRetryAt"].startswith("2026-01-01T00:00:10")
    everything = json.dumps([record, b.events.all, caught.value.message])
    assert PASSWORD not in everything
    assert "alice" not in everything


@pytest.mark.parametrize(
    ("credentials", "script", "known", "asked", "digest"),
    [
        pytest.param(
            (), ["unexpected EOF"], None, [None], NEW_DIGEST, id="nobody-in-particular"
        ),
        pytest.param(
            (ALICE, BOB),
            ["pull: 401 Unauthorized", "unexpected EOF"],
            BOB.auth,
            [BOB.auth],
            NEW_DIGEST,
            id="not-as-one-who-was-refused",
        ),
        pytest.param(
            (ALICE,), ["not found"], None, [ALICE.auth], None, id="it-does-not-tell"
        ),
        pytest.param(
            (ALICE,), ["429 Too Many Requests"], ALICE.auth, [], None, id="it-is-busy"
        ),
    ],
)
async def test_a_failed_pull_has_the_remote_digest_where_the_registry_tells_it(
    credentials, script, known, asked, digest
):
    remote = Remote(known)
    old = Image("sha256:old", repo_digests=(f"reg.test/app@{DIGEST}",))
    b = bench(*script, here=old, credentials=credentials, remote=remote)

    with pytest.raises(ImageError):
        await b.ensure()

    (record,) = await b.records()
    assert record["result"] == "ErrImagePull"
    assert record["localDigest"] == DIGEST
    assert record.get("remoteDigest") == digest
    assert remote.asked == asked


async def test_a_present_image_is_noted_once_until_something_changes():
    b = bench(here=Image("sha256:x", repo_digests=(f"reg.test/app@{DIGEST}",)))

    for _ in range(3):
        await b.ensure("IfNotPresent")

    (record,) = await b.records()
    assert (record["result"], record["localDigest"]) == ("Present", DIGEST)


async def test_a_refusal_to_pull_is_noted():
    b = bench()

    for _ in range(3):
        with pytest.raises(ImageError):
            await b.ensure("Never")

    (record,) = await b.records()
    assert record["result"] == "ErrImageNeverPull"
