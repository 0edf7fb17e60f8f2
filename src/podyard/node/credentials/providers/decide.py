"""Credential provider plugins: their configuration and their protocol. Pure.

Sources: https://kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider/
and ``pkg/credentialprovider/plugin`` (v1.36). Docker's helpers:
https://github.com/docker/docker-credential-helpers (the protocol in its README).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final, Literal, TypeAlias, cast

import orjson

from podyard.api.documents import Document
from podyard.api.runtime import ImageAuth
from podyard.lib.durations import parse_duration
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import normalize_key, urls_match

CONFIG_KIND: Final = "CredentialProviderConfig"
CONFIG_VERSIONS: Final = (
    "kubelet.config.k8s.io/v1",
    "kubelet.config.k8s.io/v1beta1",
    "kubelet.config.k8s.io/v1alpha1",
)
PLUGIN_V1: Final = "credentialprovider.kubelet.k8s.io/v1"
PLUGIN_VERSIONS: Final = (
    PLUGIN_V1,
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
)
#: Docker's word for "the secret is an identity token, not a password".
TOKEN_USER: Final = "<token>"  # noqa: S105 - a word of the protocol

CacheType: TypeAlias = Literal["Token", "ServiceAccount"]
CacheKeyType: TypeAlias = Literal["Image", "Registry", "Global"]


class ProviderConfigError(ValueError):
    """A credential provider configuration cannot be used; the message says why."""


class ProviderAnswerError(ValueError):
    """A program gave no credentials; the message holds nothing of its answer."""


@dataclass(frozen=True, slots=True)
class TokenAttributes:
    """How a plugin is given a token of the Pod's ServiceAccount (KEP-4412).

    Attributes:
        audience: whom the token is for.
        cache_type: whether answers are kept per token or per ServiceAccount.
        require_account: never ask for Pods without a ServiceAccount.
        required: annotations of the ServiceAccount that must be there, and are told.
        optional: annotations that are told where they are there.
    """

    audience: str
    cache_type: CacheType
    require_account: bool
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """One plugin.

    Attributes:
        name: its program in the directory of plugins.
        api_version: of the protocol.
        match_images: for which images it is asked.
        default_cache_s: how long an answer is good that does not say so itself.
        args: of the program.
        env: added to its environment; may hold secrets.
        token: set where it is given ServiceAccount tokens.
    """

    name: str
    api_version: str
    match_images: tuple[str, ...]
    default_cache_s: float
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token: TokenAttributes | None = None

    def wants(self, repository: str) -> bool:
        """Say whether it is asked for a repository."""
        keys = (normalize_key(pattern) for pattern in self.match_images)
        return any(key is not None and urls_match(key, repository) for key in keys)


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What a plugin answered. Its repr hides the credentials.

    Attributes:
        cache_key_type: for what else the answer is good.
        cache_s: for how long; 0 for this once.
        auths: registry key and credential.
    """

    cache_key_type: CacheKeyType
    cache_s: float
    auths: tuple[tuple[str, ImageAuth], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """The ServiceAccount a plugin is asked for.

    Attributes:
        namespace: of the account.
        name: of the account.
        uid: of the account.
        annotations: those the plugin is told.
    """

    namespace: str
    name: str
    uid: str
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SkipProvider:
    """The plugin is not asked for this Pod."""

    why: str


# -- configuration ---------------------------------------------------------------


def parse_providers(documents: Iterable[tuple[str, object]]) -> tuple[Provider, ...]:
    """Read ``CredentialProviderConfig`` documents, as strictly as the kubelet.

    Args:
        documents: file name and parsed content, in order; their providers add up.

    Raises:
        ProviderConfigError: one cannot be used.
    """
    found: list[Provider] = []
    for file, document in documents:
        if not isinstance(document, dict):
            raise ProviderConfigError(f"{file}: is no map")
        _only(document, {"apiVersion", "kind", "providers"}, file)
        if document.get("kind") != CONFIG_KIND:
            raise ProviderConfigError(f"{file}: kind: must be {CONFIG_KIND}")
        if document.get("apiVersion") not in CONFIG_VERSIONS:
            raise ProviderConfigError(
                f"{file}: apiVersion: must be one of: {', '.join(CONFIG_VERSIONS)}"
            )
        entries = document.get("providers") or []
        if not isinstance(entries, list):
            raise ProviderConfigError(f"{file}: providers: must be a list")
        for index, entry in enumerate(entries):
            found.append(_parse_provider(entry, f"{file}: providers[{index}]"))
    if not found:
        raise ProviderConfigError("providers: at least 1 item in plugins is required")
    names = [provider.name for provider in found]
    for name in names:
        if names.count(name) > 1:
            raise ProviderConfigError(
                f'duplicate provider name "{name}" found in configuration file(s)'
            )
    return tuple(found)


def _only(document: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in set(document) - known)
    if unknown:
        raise ProviderConfigError(f'{where}: unknown field "{unknown[0]}"')


def _parse_provider(entry: object, where: str) -> Provider:
    if not isinstance(entry, dict):
        raise ProviderConfigError(f"{where}: is no map")
    known = {"name", "apiVersion", "matchImages", "defaultCacheDuration"}
    _only(entry, known | {"args", "env", "tokenAttributes"}, where)
    version = str(entry.get("apiVersion") or "")
    if not version:
        raise ProviderConfigError(f"{where}.apiVersion: Required value")
    if version not in PLUGIN_VERSIONS:
        raise ProviderConfigError(
            f'{where}.apiVersion: Unsupported value: "{version}": supported values: '
            + ", ".join(f'"{item}"' for item in PLUGIN_VERSIONS)
        )
    token = None
    if entry.get("tokenAttributes") is not None:
        if version != PLUGIN_V1:
            raise ProviderConfigError(
                f"{where}.tokenAttributes: tokenAttributes is only supported for "
                f"{PLUGIN_V1} API version"
            )
        token = _parse_token(entry["tokenAttributes"], f"{where}.tokenAttributes")
    return Provider(
        name=_parse_name(entry.get("name"), f"{where}.name"),
        api_version=version,
        match_images=_parse_images(entry.get("matchImages"), f"{where}.matchImages"),
        default_cache_s=_parse_span(
            entry.get("defaultCacheDuration"), f"{where}.defaultCacheDuration"
        ),
        args=_texts(entry.get("args"), f"{where}.args"),
        env=_parse_env(entry.get("env"), f"{where}.env"),
        token=token,
    )


def _parse_name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ProviderConfigError(f"{where}: Required value: name is required")
    if value in {".", ".."}:
        raise ProviderConfigError(f"{where}: provider name cannot be '{value}'")
    if "/" in value:
        raise ProviderConfigError(f"{where}: provider name cannot contain '/'")
    if any(char.isspace() for char in value):
        raise ProviderConfigError(f"{where}: provider name cannot contain spaces")
    return value


def _parse_images(value: object, where: str) -> tuple[str, ...]:
    images = _texts(value, where)
    if not images:
        raise ProviderConfigError(
            f"{where}: Required value: at least 1 item in matchImages is required"
        )
    for image in images:
        if not normalize_key(image):
            raise ProviderConfigError(f'{where}: "{image}" is not a valid glob')
    return images


def _parse_span(value: object, where: str) -> float:
    if value is None:
        raise ProviderConfigError(
            f"{where}: Required value: defaultCacheDuration is required"
        )
    text = str(value)
    if text.startswith("-"):
        raise ProviderConfigError(f"{where}: must be greater than or equal to 0")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ProviderConfigError(f"{where}: {error}") from error


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ProviderConfigError(f"{where}: must be a list of strings")
    return tuple(value)


def _parse_env(value: object, where: str) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ProviderConfigError(f"{where}: must be a list")
    pairs: list[tuple[str, str]] = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ProviderConfigError(f"{where}[{index}]: needs a name and a value")
        _only(entry, {"name", "value"}, f"{where}[{index}]")
        pairs.append((entry["name"], str(entry.get("value") or "")))
    return tuple(pairs)


def _parse_token(value: object, where: str) -> TokenAttributes:
    if not isinstance(value, dict):
        raise ProviderConfigError(f"{where}: is no map")
    required_key = "requiredServiceAccountAnnotationKeys"
    optional_key = "optionalServiceAccountAnnotationKeys"
    known = {"serviceAccountTokenAudience", "cacheType", "requireServiceAccount"}
    _only(value, known | {required_key, optional_key}, where)
    audience = value.get("serviceAccountTokenAudience")
    if not isinstance(audience, str) or not audience:
        raise ProviderConfigError(
            f"{where}.serviceAccountTokenAudience: Required value: "
            "serviceAccountTokenAudience is required"
        )
    cache_type = value.get("cacheType")
    if cache_type not in {"Token", "ServiceAccount"}:
        raise ProviderConfigError(
            f"{where}.cacheType: cacheType is required to be set when tokenAttributes "
            "is specified. Supported values are: ServiceAccount, Token"
        )
    require = value.get("requireServiceAccount")
    if not isinstance(require, bool):
        raise ProviderConfigError(
            f"{where}.requireServiceAccount: Required value: "
            "requireServiceAccount is required"
        )
    required = _texts(value.get(required_key), f"{where}.{required_key}")
    optional = _texts(value.get(optional_key), f"{where}.{optional_key}")
    if required and not require:
        raise ProviderConfigError(
            f"{where}.{required_key}: requireServiceAccount cannot be false when "
            "requiredServiceAccountAnnotationKeys is set"
        )
    if set(required) & set(optional):
        raise ProviderConfigError(
            f"{where}: annotation keys cannot be both required and optional"
        )
    return TokenAttributes(
        audience, cast("CacheType", cache_type), require, required, optional
    )


# -- protocol --------------------------------------------------------------------


def decide_account(
    token: TokenAttributes, namespace: str, name: str, account: Document | None
) -> Account | SkipProvider | None:
    """Decide for which ServiceAccount a plugin is asked; ``None`` means for none.

    Args:
        token: what the plugin wants.
        namespace: the Pod's.
        name: the Pod's ServiceAccount; empty where it has none.
        account: that object; ``None`` where it does not exist.
    """
    if not name:
        if token.require_account:
            return SkipProvider("the Pod has no ServiceAccount")
        return None
    if account is None:
        return SkipProvider(f'the ServiceAccount "{namespace}/{name}" does not exist')
    metadata = account.get("metadata") or {}
    notes: Mapping[str, str] = metadata.get("annotations") or {}
    for key in token.required:
        if key not in notes:
            return SkipProvider(
                f'the ServiceAccount "{namespace}/{name}" lacks the annotation {key}'
            )
    told = sorted({*token.required, *token.optional} & set(notes))
    return Account(
        namespace,
        name,
        str(metadata.get("uid") or ""),
        tuple((key, str(notes[key])) for key in told),
    )


def build_request(
    provider: Provider, repository: str, *, token: str = "", account: Account | None
) -> bytes:
    """Return what the plugin reads on its standard input."""
    request: Document = {
        "kind": "CredentialProviderRequest",
        "apiVersion": provider.api_version,
        "image": repository,
    }
    if token:
        request["serviceAccountToken"] = token
    if account is not None and account.annotations:
        request["serviceAccountAnnotations"] = dict(account.annotations)
    return orjson.dumps(request)


def parse_answer(raw: bytes, provider: Provider, *, token: str = "") -> ProviderAnswer:
    """Read what a plugin wrote on its standard output.

    Raises:
        ProviderAnswerError: it is no answer of this protocol.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProviderAnswerError("its answer is not valid JSON") from error
    if not isinstance(document, dict):
        raise ProviderAnswerError("its answer is no JSON object")
    known = {"kind", "apiVersion", "cacheKeyType", "cacheDuration", "auth"}
    if set(document) - known:
        raise ProviderAnswerError("its answer has unknown fields")
    if document.get("kind") != "CredentialProviderResponse":
        raise ProviderAnswerError("its answer is no CredentialProviderResponse")
    if document.get("apiVersion") != provider.api_version:
        raise ProviderAnswerError(
            f"its answer has another apiVersion than {provider.api_version}"
        )
    kind = document.get("cacheKeyType")
    if kind not in {"Image", "Registry", "Global"}:
        raise ProviderAnswerError(
            "the cacheKeyType of its answer is not Image, Registry or Global"
        )
    auths = _parse_auths(document.get("auth"))
    keeps = provider.token is not None and provider.token.cache_type != "Token"
    if keeps and token and any(auth.password == token for _, auth in auths):
        raise ProviderAnswerError(
            "its answer holds the ServiceAccount token; cacheType must then be Token"
        )
    return ProviderAnswer(
        cast("CacheKeyType", kind),
        _parse_cache_span(document.get("cacheDuration"), provider.default_cache_s),
        auths,
    )


def _parse_auths(value: object) -> tuple[tuple[str, ImageAuth], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise ProviderAnswerError("the auth of its answer is no JSON object")
    auths: list[tuple[str, ImageAuth]] = []
    for key, entry in value.items():
        if not isinstance(entry, dict) or set(entry) - {"username", "password"}:
            raise ProviderAnswerError(
                "an entry in the auth of its answer is no username and password"
            )
        username, password = entry.get("username", ""), entry.get("password", "")
        if not isinstance(username, str) or not isinstance(password, str):
            raise ProviderAnswerError(
                "an entry in the auth of its answer is no username and password"
            )
        auths.append((key, ImageAuth(username=username, password=password)))
    return tuple(auths)


def _parse_cache_span(value: object, default_s: float) -> float:
    if value is None:
        return default_s
    try:
        return max(parse_duration(str(value)), 0.0)
    except ValueError as error:
        raise ProviderAnswerError(
            "the cacheDuration of its answer is no duration"
        ) from error


def cache_key(
    kind: CacheKeyType,
    repository: str,
    provider: Provider,
    *,
    account: Account | None = None,
    token: str = "",
) -> tuple[str, ...]:
    """Return the key an answer is kept under; no part of it is a secret."""
    what = {
        "Image": repository,
        "Registry": repository.partition("/")[0],
        "Global": "",
    }[kind]
    key: tuple[str, ...] = (provider.name, kind, what)
    if provider.token is None:
        return key
    if account is not None:
        notes = orjson.dumps(account.annotations).decode()
        key = (*key, account.namespace, account.name, account.uid, notes)
    if provider.token.cache_type == "Token":
        key = (*key, hashlib.sha256(token.encode()).hexdigest())
    return key


def cache_keys(
    repository: str,
    provider: Provider,
    *,
    account: Account | None = None,
    token: str = "",
) -> Sequence[tuple[str, ...]]:
    """Return the keys to look under, in the kubelet's order."""
    kinds: tuple[CacheKeyType, ...] = ("Image", "Registry", "Global")
    return [
        cache_key(kind, repository, provider, account=account, token=token)
        for kind in kinds
    ]


# -- Docker's helpers ------------------------------------------------------------


def parse_helper_answer(raw: bytes) -> ImageAuth:
    """Read what ``docker-credential-NAME get`` wrote.

    Raises:
        ProviderAnswerError: it is no answer of that protocol.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProviderAnswerError("its answer is not valid JSON") from error
    if not isinstance(document, dict):
        raise ProviderAnswerError("its answer is no JSON object")
    username, secret = document.get("Username"), document.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise ProviderAnswerError("its answer has no Username and Secret")
    if username == TOKEN_USER:
        return ImageAuth(identity_token=secret)
    return ImageAuth(username=username, password=secret)
