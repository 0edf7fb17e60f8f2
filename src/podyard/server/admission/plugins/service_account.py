"""Every Pod has a ServiceAccount, and its token as a projected volume.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller
and kubernetes ``plugin/pkg/admission/serviceaccount`` (v1.36).
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from podyard.api.documents import Document
from podyard.api.scheme import SERVICE_ACCOUNT
from podyard.server.admission.denials import deny
from podyard.server.admission.parts import AdmissionPlugin, AdmissionRequest, Lookup
from podyard.server.admission.pods import (
    is_mirror,
    is_pod_creation,
    pod_spec,
    projections,
    secret_names,
)

DEFAULT: Final = "default"
#: What the token volume's name begins with.
VOLUME_PREFIX: Final = "kube-api-access-"
#: Where containers find the token.
MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
#: The life the volume's token asks for, seconds: an hour and a mark of its origin.
TOKEN_LIFE_S: Final = 3607
#: The ConfigMap with the authority's certificate, in every Namespace.
ROOT_CA: Final = "kube-root-ca.crt"
_ENFORCE: Final = "kubernetes.io/enforce-mountable-secrets"
#: The ``default`` account follows its Namespace a moment later.
_DEFAULT_ATTEMPTS: Final = 10
_RETRY_S: Final = 0.1


async def mutate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Name the ServiceAccount, mount its token, take over its pull secrets.

    Raises:
        ApiError: 403, there is no such ServiceAccount.
    """
    if not is_pod_creation(request) or is_mirror(request.object):
        return
    spec = pod_spec(request)
    name = spec.get("serviceAccountName") or DEFAULT
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = await _account(request, lookup, name)
    if _automount(account, spec):
        _mount_token(spec, request)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [
            dict(reference) for reference in account["imagePullSecrets"]
        ]


async def validate(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse a Pod without account, and mirror Pods that refer to one.

    Raises:
        ApiError: 403.
    """
    if not is_pod_creation(request):
        return
    spec = pod_spec(request)
    if is_mirror(request.object):
        _check_mirror(request, spec)
        return
    name = spec.get("serviceAccountName")
    if not name:
        pod = (request.object or {}).get("metadata", {}).get("name", "")
        raise deny(
            request, f"no service account specified for pod {request.namespace}/{pod}"
        )
    account = await _account(request, lookup, name)
    annotations = account["metadata"].get("annotations") or {}
    if annotations.get(_ENFORCE, "").lower() in {"true", "1", "t"}:
        for why in _unlisted_secrets(account, spec):
            raise deny(request, why)


async def _account(request: AdmissionRequest, lookup: Lookup, name: str) -> Document:
    attempts = _DEFAULT_ATTEMPTS if name == DEFAULT else 1
    for attempt in range(attempts):
        if attempt:
            await asyncio.sleep(_RETRY_S)
        account = await lookup.get(SERVICE_ACCOUNT, request.namespace, name)
        if account is not None:
            return account
    raise deny(
        request,
        f"error looking up service account {request.namespace}/{name}: "
        f'serviceaccount "{name}" not found',
    )


def _automount(account: Document, spec: Document) -> bool:
    for holder in (spec, account):
        wish = holder.get("automountServiceAccountToken")
        if wish is not None:
            return bool(wish)
    return True


def _mount_token(spec: Document, request: AdmissionRequest) -> None:
    """Mount the token in each container that has nothing at its place."""
    volumes = spec.get("volumes") or []
    present = [v["name"] for v in volumes if v["name"].startswith(VOLUME_PREFIX)]
    waiting = [
        container
        for field in ("initContainers", "containers")
        for container in spec.get(field) or ()
        if all(
            mount.get("mountPath") != MOUNT_PATH
            for mount in container.get("volumeMounts") or ()
        )
    ]
    if not waiting:
        return
    if present:
        name = present[0]
    else:
        name = _volume_name(request, {volume["name"] for volume in volumes})
        spec["volumes"] = [*volumes, {"name": name, "projected": _token_source()}]
    mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
    for container in waiting:
        container["volumeMounts"] = [
            *(container.get("volumeMounts") or ()),
            dict(mount),
        ]


def _volume_name(request: AdmissionRequest, taken: set[str]) -> str:
    while True:
        name = VOLUME_PREFIX + request.suffix()
        if name not in taken:
            return name


def _token_source() -> Document:
    return {
        "defaultMode": 0o644,
        "sources": [
            {
                "serviceAccountToken": {
                    "expirationSeconds": TOKEN_LIFE_S,
                    "path": "token",
                }
            },
            {
                "configMap": {
                    "name": ROOT_CA,
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {
                                "apiVersion": "v1",
                                "fieldPath": "metadata.namespace",
                            },
                        }
                    ]
                }
            },
        ],
    }


def _check_mirror(request: AdmissionRequest, spec: Document) -> None:
    if spec.get("serviceAccountName"):
        raise deny(request, "a mirror pod may not reference service accounts")
    if any(True for _ in secret_names(spec)):
        raise deny(request, "a mirror pod may not reference secrets")
    if any(source.get("serviceAccountToken") for source in projections(spec)):
        raise deny(
            request, "a mirror pod may not use ServiceAccountToken volume projections"
        )


def _unlisted_secrets(account: Document, spec: Document) -> Iterator[str]:
    """Iterate over the faults of an account that allows only its own Secrets."""
    owner = account["metadata"]["name"]
    mountable = {entry.get("name") for entry in account.get("secrets") or ()}
    tail = f"is not allowed because service account {owner} does not reference that"
    for volume in spec.get("volumes") or ():
        name = (volume.get("secret") or {}).get("secretName")
        if name and name not in mountable:
            yield f'volume with secret.secretName="{name}" {tail} secret'
    for kind, field in (
        ("init container", "initContainers"),
        ("container", "containers"),
    ):
        for container in spec.get(field) or ():
            for variable in container.get("env") or ():
                source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
                name = source.get("name")
                if name and name not in mountable:
                    yield (
                        f"{kind} {container['name']} with envVar {variable['name']} "
                        f'referencing secret.secretName="{name}" {tail} secret'
                    )
    pulled = {entry.get("name") for entry in account.get("imagePullSecrets") or ()}
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if reference.get("name") not in pulled:
            name = reference.get("name")
            yield f'imagePullSecrets[{index}].name="{name}" {tail} imagePullSecret'


PART: Final = AdmissionPlugin(
    name="ServiceAccount",
    after=("NamespaceLifecycle",),
    mutate=mutate,
    validate=validate,
)
