"""Whether a Pod may use an image that is there without asking the registry. Pure.

Sources: KEP-2535 and ``pkg/kubelet/images/pullmanager`` (v1.36);
https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Final, Literal, TypeAlias

from podyard.api.image_ref import ImageRefError, parse_image_ref
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import Credential, auth_hash

Policy: TypeAlias = Literal[
    "NeverVerify",
    "NeverVerifyPreloadedImages",
    "NeverVerifyAllowlistedImages",
    "AlwaysVerify",
]
VERIFICATION_POLICIES: Final[tuple[Policy, ...]] = (
    "NeverVerify",
    "NeverVerifyPreloadedImages",
    "NeverVerifyAllowlistedImages",
    "AlwaysVerify",
)
#: So many Secrets are remembered for an image without a pull of their own.
MAX_SECRETS: Final = 100

#: Namespace, name and uid of an object.
Coordinates: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class SecretAccess:
    """A Secret that opened an image."""

    secret: Coordinates
    credential_hash: str


@dataclass(frozen=True, slots=True)
class Access:
    """Whom a registry gave an image under one name.

    Attributes:
        everybody: it came without credentials, or with those of the node.
        secrets: Secrets that opened it.
        accounts: ServiceAccounts it was given to.
    """

    everybody: bool = False
    secrets: tuple[SecretAccess, ...] = ()
    accounts: tuple[Coordinates, ...] = ()


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """What is known of an image we pulled.

    Attributes:
        image_ref: the runtime's id of it.
        updated_at: when it was last pulled or verified.
        access: by repository.
    """

    image_ref: str
    updated_at: datetime
    access: Mapping[str, Access] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerificationSettings:
    """Which present images are verified (KubeletConfiguration's names).

    Attributes:
        policy: ``imagePullCredentialsVerificationPolicy``.
        allowlist: ``preloadedImagesVerificationAllowlist``, parsed.
    """

    policy: Policy = "NeverVerifyPreloadedImages"
    allowlist: tuple[str, ...] = ()


def parse_policy(text: str) -> Policy:
    """Return a policy by its name.

    Raises:
        ValueError: there is none of that name.
    """
    for policy in VERIFICATION_POLICIES:
        if policy == text:
            return policy
    raise ValueError(f"must be one of: {', '.join(VERIFICATION_POLICIES)}")


def parse_allowlist(patterns: Iterable[str]) -> tuple[str, ...]:
    """Check a ``preloadedImagesVerificationAllowlist``.

    Raises:
        ValueError: a pattern is neither an image name nor ends in ``/*``.
    """
    checked: list[str] = []
    for pattern in patterns:
        if not _is_pattern(pattern):
            raise ValueError(
                f'"{pattern}" must be an image name without tag and digest, or such a '
                "name followed by /*"
            )
        checked.append(pattern)
    return tuple(checked)


def _is_pattern(pattern: str) -> bool:
    try:
        ref = parse_image_ref(pattern.removesuffix("/*"))
    except ImageRefError:
        return False
    return not ref.tag and not ref.digest


def in_allowlist(image: str, allowlist: Sequence[str]) -> bool:
    """Say whether an image is in the list, compared as it is written in the Pod."""
    name = _without_tag(image)
    return any(
        name.startswith(pattern.removesuffix("*"))
        if pattern.endswith("/*")
        else name == pattern
        for pattern in allowlist
    )


def _without_tag(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def needs_verification(
    image: str, settings: VerificationSettings, *, known: bool
) -> bool:
    """Say whether a Pod's right to a present image has to be known.

    Args:
        image: as it is written in the Pod.
        settings: the policy.
        known: whether we pulled the image, or began to.
    """
    match settings.policy:
        case "NeverVerify":
            return False
        case "NeverVerifyPreloadedImages":
            return known
        case "NeverVerifyAllowlistedImages":
            return not in_allowlist(image, settings.allowlist)
        case "AlwaysVerify":
            return True


@dataclass(frozen=True, slots=True)
class MayUse:
    """The Pod may use it; ``record`` is what to keep where that has changed."""

    record: PulledRecord | None = None


@dataclass(frozen=True, slots=True)
class MustPull:
    """The registry has to be asked."""


def opens_for_all(record: PulledRecord | None, repository: str) -> bool:
    """Say whether every Pod may use it, so that no credential is looked at."""
    access = record.access.get(repository) if record else None
    return access is not None and access.everybody


def decide_access(
    record: PulledRecord | None,
    repository: str,
    credentials: Sequence[Credential],
    *,
    now: datetime,
) -> MayUse | MustPull:
    """Decide whether a Pod may use a present image without asking the registry.

    Args:
        record: what is known of the image; ``None`` where nothing is.
        repository: the name the Pod has for it.
        credentials: those of the Pod that fit.
        now: dates what changes.
    """
    access = record.access.get(repository) if record else None
    if record is None or access is None:
        return MustPull()
    if access.everybody:
        return MayUse()
    accounts = {one.account for one in credentials if one.account is not None}
    if not accounts.isdisjoint(access.accounts):
        return MayUse()
    for credential in credentials:
        if credential.secret is None:
            continue
        found = _find_secret(access, credential.secret, auth_hash(credential.auth))
        if found is None:
            continue
        if found == access:
            return MayUse()
        return MayUse(_with_access(record, repository, found, now))
    return MustPull()


def _find_secret(access: Access, secret: Coordinates, digest: str) -> Access | None:
    """Return the access that a Secret has, with the Secret remembered, or ``None``."""
    known = SecretAccess(secret, digest)
    if known in access.secrets:
        return access
    if any(one.credential_hash == digest for one in access.secrets):
        return (
            access
            if len(access.secrets) >= MAX_SECRETS
            else _with_secret(access, known)
        )
    # The same Secret with new content is asked about again: what it says now need
    # not be good any more.
    return None


def _with_secret(access: Access, known: SecretAccess) -> Access:
    others = [one for one in access.secrets if one.secret != known.secret]
    listed = sorted([*others, known], key=lambda one: one.secret)
    return replace(access, secrets=tuple(listed))


def _with_access(
    record: PulledRecord, repository: str, access: Access, now: datetime
) -> PulledRecord:
    return PulledRecord(record.image_ref, now, {**record.access, repository: access})


def record_pull(
    record: PulledRecord | None,
    image_ref: str,
    repository: str,
    credential: Credential | None,
    *,
    now: datetime,
) -> PulledRecord:
    """Return the record after a pull that worked.

    Args:
        record: the one before; ``None`` where there was none.
        image_ref: the runtime's id of the image.
        repository: the name it was pulled by.
        credential: the one the registry took; ``None`` for none.
        now: when.
    """
    record = record or PulledRecord(image_ref, now)
    access = record.access.get(repository, Access())
    if access.everybody or credential is None:
        access = Access(everybody=True)
    elif credential.secret is not None:
        known = SecretAccess(credential.secret, auth_hash(credential.auth))
        if known not in access.secrets:
            access = _with_secret(access, known)
    elif credential.account is not None:
        accounts = tuple(sorted({*access.accounts, credential.account}))
        access = replace(access, accounts=accounts)
    else:
        access = Access(everybody=True)
    return _with_access(record, repository, access, now)
