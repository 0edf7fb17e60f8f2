"""Rules of projected volumes.

Source: ``pkg/apis/core/validation`` (v1.36) and
https://kubernetes.io/docs/concepts/storage/projected-volumes/
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from podyard.api.documents import Document
from podyard.api.errors import (
    FieldError,
    forbidden_field,
    invalid,
    not_supported,
    required,
)
from podyard.api.syntax import check_dns1123_subdomain, check_fqdn
from podyard.api.validation.faults import check_text
from podyard.api.validation.object_meta import check_label_selector
from podyard.api.validation.paths import check_local

_CheckItem = Callable[[Document, str], Iterator[FieldError]]

_SOURCES: Final = (
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
)
_DUPLICATE: Final = "conflicting duplicate paths"
_MIN_TOKEN_LIFE_S: Final = 600
_MAX_TOKEN_LIFE_S: Final = 1 << 32
_MIN_CERTIFICATE_LIFE_S: Final = 3600
_MAX_CERTIFICATE_LIFE_S: Final = 91 * 86400
_MAX_KUBERNETES_CERTIFICATE_LIFE_S: Final = 86400
_KEY_TYPES: Final = (
    "RSA3072",
    "RSA4096",
    "ECDSAP256",
    "ECDSAP384",
    "ECDSAP521",
    "ED25519",
)


def check_projections(
    sources: Sequence[Document],
    field: str,
    check_key_to_path: _CheckItem,
    check_downward_file: _CheckItem,
) -> Iterator[FieldError]:
    """Check the sources of a projected volume.

    Args:
        sources: the list.
        field: the path of the volume source.
        check_key_to_path: checks an entry of a ConfigMap or Secret.
        check_downward_file: checks a downward API file.
    """
    paths: set[str] = set()
    for index, source in enumerate(sources):
        where = f"{field}.sources[{index}]"
        for name in ("secret", "configMap"):
            part = source.get(name)
            if part is None:
                continue
            if not part.get("name"):
                yield required(f"{where}.{name}.name")
            for number, item in enumerate(part.get("items") or ()):
                yield from check_key_to_path(item, f"{where}.{name}.items[{number}]")
                path = item.get("path") or ""
                yield from _claim(paths, path, field, part.get("name"))
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            yield from check_downward_file(item, f"{where}.downwardAPI")
            path = item.get("path") or ""
            yield from _claim(paths, path, field, path)
        yield from _check_token(source.get("serviceAccountToken"), field, where)
        yield from _check_bundle(source.get("clusterTrustBundle"), field, where, paths)
        yield from _check_certificate(source.get("podCertificate"), field, where, paths)
        if sum(source.get(name) is not None for name in _SOURCES) > 1:
            yield forbidden_field(
                where, "may not specify more than 1 volume type per source"
            )


def _claim(
    paths: set[str], path: str, field: str, shown: object
) -> Iterator[FieldError]:
    if path and path in paths:
        yield invalid(field, shown, _DUPLICATE)
    paths.add(path)


def _check_token(
    token: Document | None, field: str, where: str
) -> Iterator[FieldError]:
    if token is None:
        return
    seconds = token.get("expirationSeconds") or 0
    name = f"{where}.serviceAccountToken.expirationSeconds"
    if seconds < _MIN_TOKEN_LIFE_S:
        yield invalid(name, seconds, "may not specify a duration less than 10 minutes")
    if seconds > _MAX_TOKEN_LIFE_S:
        yield invalid(
            name, seconds, "may not specify a duration larger than 2^32 seconds"
        )
    path = token.get("path") or ""
    if not path:
        yield required(f"{field}.path")
    else:
        yield from check_local(f"{field}.path", path)


def _check_bundle(
    bundle: Document | None, field: str, where: str, paths: set[str]
) -> Iterator[FieldError]:
    if bundle is None:
        return
    where = f"{where}.clusterTrustBundle"
    name, signer = bundle.get("name"), bundle.get("signerName")
    if name is not None and signer is not None:
        yield invalid(where, bundle, "only one of name and signerName may be used")
    elif name is not None:
        for text in check_dns1123_subdomain(name.replace(":", ".")):
            detail = f"not a valid clustertrustbundlename: {text}"
            yield invalid(f"{where}.name", name, detail)
        if bundle.get("labelSelector") is not None:
            yield invalid(
                f"{where}.labelSelector",
                bundle["labelSelector"],
                "labelSelector must be unset if name is specified",
            )
    elif signer is not None:
        yield from _check_signer(signer, f"{where}.signerName")
        yield from check_label_selector(
            bundle.get("labelSelector"), f"{where}.labelSelector"
        )
    else:
        yield required(where, "either name or signerName must be specified")
    path = bundle.get("path") or ""
    if not path:
        yield required(f"{where}.path")
    yield from check_local(f"{where}.path", path)
    yield from _claim(paths, path, field, path)


def _check_signer(signer: str, field: str) -> Iterator[FieldError]:
    domain, slash, path = signer.partition("/")
    if not signer:
        yield required(field)
    elif not slash or not path:
        yield invalid(
            field,
            signer,
            'must be a fully qualified domain and path of the form "example.com/'
            'signer-name"',
        )
    else:
        yield from check_text(field, domain, check_fqdn)
        yield from check_text(field, path, check_dns1123_subdomain)


def _check_certificate(
    certificate: Document | None, field: str, where: str, paths: set[str]
) -> Iterator[FieldError]:
    if certificate is None:
        return
    where = f"{where}.podCertificate"
    signer = certificate.get("signerName") or ""
    yield from _check_signer(signer, f"{where}.signerName")
    key_type = certificate.get("keyType") or ""
    if key_type not in _KEY_TYPES:
        yield not_supported(f"{where}.keyType", key_type, _KEY_TYPES)
    seconds = certificate.get("maxExpirationSeconds")
    limit = _MAX_CERTIFICATE_LIFE_S
    if signer.startswith("kubernetes.io/"):
        limit = _MAX_KUBERNETES_CERTIFICATE_LIFE_S
    if seconds is not None and not _MIN_CERTIFICATE_LIFE_S <= seconds <= limit:
        bound = f">= {_MIN_CERTIFICATE_LIFE_S}" if seconds < limit else f"<= {limit}"
        yield invalid(
            f"{where}.maxExpirationSeconds",
            seconds,
            f"if provided, maxExpirationSeconds must be {bound}",
        )
    found = 0
    for key in ("credentialBundlePath", "keyPath", "certificateChainPath"):
        path = certificate.get(key) or ""
        if path:
            found += 1
            yield from check_local(f"{where}.{key}", path)
            yield from _claim(paths, path, field, path)
    if not found:
        yield required(
            where,
            "specify at least one of credentialBundlePath, keyPath, and "
            "certificateChainPath",
        )
