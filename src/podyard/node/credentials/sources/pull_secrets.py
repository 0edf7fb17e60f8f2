"""The Secrets a Pod names in imagePullSecrets, merged into one keyring.

Source: https://kubernetes.io/docs/concepts/containers/images/#specifying-imagepullsecrets-on-a-pod
"""

from typing import Final

from podyard.api.core_v1 import Pod
from podyard.api.scheme import SECRET
from podyard.client.referenced import ReferencedObjectError
from podyard.node.credentials.decide import (
    DOCKER_CFG,
    DOCKER_CONFIG_JSON,
    SECRET_KEYS,
    Credential,
    CredentialParseError,
    parse_secret,
)
from podyard.node.credentials.parts import (
    CredentialProblem,
    CredentialSource,
    LoadedCredentials,
    SourceContext,
)

_REASON: Final = "FailedToRetrieveImagePullSecret"


class PullSecrets:
    """One bad Secret never spoils the others; each is told of by its name."""

    def __init__(self, context: SourceContext) -> None:
        self._objects = context.objects

    async def load(self, pod: Pod, repository: str) -> LoadedCredentials:  # noqa: ARG002
        """Return the credentials of every usable Secret, in the Pod's order."""
        credentials: list[Credential] = []
        problems: list[CredentialProblem] = []
        missing: list[str] = []
        for name in pod.spec.image_pull_secrets:
            if not name:
                continue
            try:
                secret = await self._objects.get(SECRET, pod.namespace, name)
            except ReferencedObjectError:
                secret = None
            if secret is None:
                missing.append(name)
                continue
            uid = str((secret.get("metadata") or {}).get("uid") or "")
            try:
                parsed = parse_secret(secret)
            except CredentialParseError as error:
                text = f'Image pull secret "{name}" is not used: {error}'
                problems.append(CredentialProblem(_REASON, text))
                continue
            if parsed is None:
                text = _wrong_type(name, str(secret.get("type") or ""))
                problems.append(CredentialProblem(_REASON, text))
                continue
            origin = f'imagePullSecret "{name}"'
            credentials.extend(
                Credential(auth, key, origin, (pod.namespace, name, uid))
                for key, auth in parsed.entries
            )
        if missing:
            text = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            problems.insert(0, CredentialProblem(_REASON, text))
        return LoadedCredentials(tuple(credentials), tuple(problems))


def _wrong_type(name: str, kind: str) -> str:
    wanted = SECRET_KEYS.get(kind)
    if wanted is not None:
        return f'Image pull secret "{name}" is not used: it has no {wanted}'
    return (
        f'Image pull secret "{name}" is not used: its type is "{kind}", not '
        f"{DOCKER_CONFIG_JSON} or {DOCKER_CFG}"
    )


PART: Final = CredentialSource(name="pull-secrets", rank=0, make=PullSecrets)
