"""The kubelet's credential provider plugins: programs of the node that are asked.

Source: https://kubernetes.io/docs/tasks/administer-cluster/kubelet-credential-provider/
"""

from dataclasses import field
from typing import Final

import structlog

from podyard.api.core_v1 import Pod
from podyard.api.documents import Document
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.client.referenced import ReferencedObjectError
from podyard.lib.aio import SharedCalls
from podyard.lib.values import dataclass
from podyard.node.credentials.decide import Credential
from podyard.node.credentials.parts import (
    AccountTokenError,
    CredentialProblem,
    CredentialSource,
    LoadedCredentials,
    ProviderPlugins,
    SourceContext,
)
from podyard.node.credentials.providers.decide import (
    Account,
    Provider,
    ProviderAnswer,
    ProviderAnswerError,
    SkipProvider,
    build_request,
    cache_key,
    cache_keys,
    decide_account,
    parse_answer,
)
from podyard.node.credentials.providers.programs import ProgramError, run_program

log = structlog.get_logger()

#: The reason of the event that tells of a plugin that failed.
PROVIDER_FAILED: Final = "CredentialProviderFailed"
#: How often answers that are too old are thrown away, seconds.
_PURGE_S: Final = 900.0


class _ProviderError(Exception):
    """A plugin gave no credentials; the message is for people."""


@dataclass(frozen=True, slots=True)
class _For:
    """Whom a plugin is asked for."""

    account: Account | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: ProviderAnswer
    until_s: float


class ExecPlugins:
    """Asks every plugin that an image matches, and keeps the answers in memory."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._kept: dict[tuple[str, ...], _Kept] = {}
        self._purge_at_s = 0.0
        self._in_flight: SharedCalls[ProviderAnswer] = SharedCalls()

    async def load(self, pod: Pod, repository: str) -> LoadedCredentials:
        """Return what the plugins give; one that fails is told of and left out."""
        plugins = self._context.plugins
        if plugins is None:
            return LoadedCredentials()
        credentials: list[Credential] = []
        problems: list[CredentialProblem] = []
        for provider in plugins.providers:
            if not provider.wants(repository):
                continue
            try:
                credentials.extend(await self._ask(plugins, provider, pod, repository))
            except _ProviderError as error:
                log.warning(
                    "credential_provider_failed", provider=provider.name, why=str(error)
                )
                text = (
                    f'Credential provider "{provider.name}" gave no credentials: '
                    f"{error}"
                )
                problems.append(CredentialProblem(PROVIDER_FAILED, text))
        return LoadedCredentials(tuple(credentials), tuple(problems))

    async def _ask(
        self, plugins: ProviderPlugins, provider: Provider, pod: Pod, repository: str
    ) -> list[Credential]:
        whom = await self._whom(provider, pod)
        if isinstance(whom, SkipProvider):
            log.debug(
                "credential_provider_skipped", provider=provider.name, why=whom.why
            )
            return []
        answer = self._find(provider, repository, whom)
        if answer is None:
            key = cache_key(
                "Image", repository, provider, account=whom.account, token=whom.token
            )
            answer = await self._in_flight.share(
                key, lambda: self._run(plugins, provider, repository, whom)
            )
        account = whom.account
        return [
            Credential(
                auth,
                key,
                f'credential provider "{provider.name}"',
                account=(account.namespace, account.name, account.uid)
                if account
                else None,
                fleeting=True,
            )
            for key, auth in answer.auths
        ]

    async def _whom(self, provider: Provider, pod: Pod) -> _For | SkipProvider:
        wanted, tokens = provider.token, self._context.tokens
        if wanted is None:
            return _For()
        name = pod.spec.service_account_name
        if name and tokens is None:
            raise _ProviderError(
                "it wants a ServiceAccount token, which only the agent of a node has"
            )
        found: Document | None = None
        try:
            if name:
                found = await self._context.objects.get(
                    SERVICE_ACCOUNT, pod.namespace, name
                )
            account = decide_account(wanted, pod.namespace, name, found)
            if isinstance(account, SkipProvider):
                return account
            if account is None or tokens is None:
                return _For()
            return _For(account, await tokens.get_token(pod, wanted.audience))
        except (ReferencedObjectError, AccountTokenError) as error:
            raise _ProviderError(str(error)) from error

    def _find(
        self, provider: Provider, repository: str, whom: _For
    ) -> ProviderAnswer | None:
        now_s = self._context.clock.monotonic_s()
        if now_s >= self._purge_at_s:
            self._purge_at_s = now_s + _PURGE_S
            old = [key for key, kept in self._kept.items() if kept.until_s <= now_s]
            for key in old:
                del self._kept[key]
        for key in cache_keys(
            repository, provider, account=whom.account, token=whom.token
        ):
            kept = self._kept.get(key)
            if kept is not None and kept.until_s > now_s:
                return kept.answer
        return None

    async def _run(
        self, plugins: ProviderPlugins, provider: Provider, repository: str, whom: _For
    ) -> ProviderAnswer:
        request = build_request(
            provider, repository, token=whom.token, account=whom.account
        )
        try:
            raw = await run_program(
                [str(plugins.bin_dir / provider.name), *provider.args],
                request,
                environment={**self._context.environment, **dict(provider.env)},
            )
            answer = parse_answer(raw, provider, token=whom.token)
        except (ProgramError, ProviderAnswerError) as error:
            raise _ProviderError(str(error)) from error
        if answer.cache_s > 0:
            key = cache_key(
                answer.cache_key_type,
                repository,
                provider,
                account=whom.account,
                token=whom.token,
            )
            until_s = self._context.clock.monotonic_s() + answer.cache_s
            self._kept[key] = _Kept(answer, until_s)
        return answer


PART: Final = CredentialSource(name="exec-plugin", rank=2, make=ExecPlugins)
