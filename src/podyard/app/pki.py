"""Our own certificate authority, and every identity inside one Podyard.

One directory holds one PEM file for each identity, the certificate first and its key
after it, so that the two can never be of different age. Everything is made once and
made anew only when it is about to expire, does not fit its names any more, was not
signed by the present authority, or cannot be read.

Source: https://kubernetes.io/docs/setup/best-practices/certificates/ (who needs what).
"""

import base64
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podyard.api import identity as who
from podyard.lib.tls import ResumingContext
from podyard.lib.values import dataclass

log = structlog.get_logger()

#: How long the authority is valid.
CA_VALID: Final = timedelta(days=3650)
#: How long every other certificate is valid.
LEAF_VALID: Final = timedelta(days=365)
#: A certificate with less than this left is made anew.
RENEW_BEFORE: Final = timedelta(days=60)
#: Certificates begin a little in the past, for clocks that disagree.
BACKDATE: Final = timedelta(hours=1)
#: The issuer of ServiceAccount tokens, and their audience where none is asked for.
ISSUER: Final = "https://kubernetes.default.svc.cluster.local"


class PkiError(Exception):
    """The directory of certificates cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key.

    Attributes:
        name: the common name.
        path: the PEM file with both, as ``ssl`` wants it.
        certificate_pem: the certificate.
        key_pem: the private key (PKCS #8).
    """

    name: str
    path: Path
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The ES256 key that signs ServiceAccount tokens.

    Attributes:
        private_pem: the private key (PKCS #8).
        public_pem: the public key.
        key_id: the JWT ``kid``: a digest of the public key.
    """

    private_pem: bytes = field(repr=False)
    public_pem: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class Names:
    """What the serving certificates have to answer for.

    Attributes:
        node_name: the Node's name.
        api_server: addresses and host names clients reach the API server by, beyond
            those it always has (localhost, loopback, ``kubernetes.default.svc`` …).
        node: addresses and host names the node's own endpoints are reached by.
        cluster_domain: the DNS domain of the cluster.
    """

    node_name: str
    api_server: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"


@dataclass(frozen=True, slots=True)
class Pki:
    """Everything the houses of one Podyard prove themselves with.

    Attributes:
        ca_path: the authority's certificate, a PEM file.
        ca_pem: the same, as bytes.
        api_server: the API server's serving certificate.
        api_server_client: who the API server is when it calls a node.
        admin: the first admin, in ``system:masters``.
        controller_manager: the controllers.
        scheduler: the scheduler.
        node_client: the node agent as a client of the API.
        node_serving: the node's own endpoints.
        service_accounts: signs ServiceAccount tokens.
    """

    ca_path: Path
    ca_pem: bytes = field(repr=False)
    api_server: Identity
    api_server_client: Identity
    admin: Identity
    controller_manager: Identity
    scheduler: Identity
    node_client: Identity
    node_serving: Identity
    service_accounts: SigningKey


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A certificate as it should be."""

    common_name: str
    organization: str = ""
    alternative_names: tuple[str, ...] = ()
    server: bool = False

    def subject(self) -> x509.Name:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)]
        if self.organization:
            attributes.insert(
                0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.organization)
            )
        return x509.Name(attributes)

    def general_names(self) -> list[x509.GeneralName]:
        return [_general_name(name) for name in self.alternative_names]

    def usage(self) -> x509.ExtendedKeyUsage:
        if self.server:
            return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def ensure_pki(directory: Path, names: Names, *, now: datetime) -> Pki:
    """Read every identity from ``directory``, and make what is missing or outdated.

    Args:
        directory: made with mode 0700 where it is absent.
        names: what the serving certificates have to answer for.
        now: the present time.

    Raises:
        PkiError: the directory cannot be read or written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        return _ensure(directory, names, now)
    except OSError as error:
        raise PkiError(
            f"cannot keep certificates in {directory}: {error.strerror or error}"
        ) from error


def _ensure(directory: Path, names: Names, now: datetime) -> Pki:
    authority = _ensure_authority(directory, now)
    ca_pem = authority.certificate.public_bytes(Encoding.PEM)
    ca_path = directory / "ca.crt"
    if _read(ca_path) != ca_pem:
        _write(ca_path, ca_pem)

    def leaf(file: str, wanted: _Leaf) -> Identity:
        return _ensure_leaf(directory / f"{file}.pem", wanted, authority, now)

    node_user = f"{who.NODE_PREFIX}{names.node_name}"
    return Pki(
        ca_path=ca_path,
        ca_pem=ca_pem,
        api_server=leaf("apiserver", _api_server_leaf(names)),
        api_server_client=leaf("apiserver-node-client", _Leaf(who.API_SERVER)),
        admin=leaf("admin", _Leaf(who.ADMIN, who.MASTERS)),
        controller_manager=leaf("controller-manager", _Leaf(who.CONTROLLER_MANAGER)),
        scheduler=leaf("scheduler", _Leaf(who.SCHEDULER)),
        node_client=leaf("node-client", _Leaf(node_user, who.NODES)),
        node_serving=leaf("node-serving", _node_leaf(names, node_user)),
        service_accounts=_ensure_signing_key(directory / "service-accounts.key"),
    )


def _api_server_leaf(names: Names) -> _Leaf:
    alternatives = (
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{names.cluster_domain}",
        "127.0.0.1",
        "::1",
        *names.api_server,
    )
    return _Leaf("podyard-apiserver", "", _unique(alternatives), server=True)


def _node_leaf(names: Names, node_user: str) -> _Leaf:
    alternatives = (names.node_name, "localhost", "127.0.0.1", "::1", *names.node)
    return _Leaf(node_user, who.NODES, _unique(alternatives), server=True)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ensure_authority(directory: Path, now: datetime) -> _Authority:
    path = directory / "ca.pem"
    present = _load_pair(path)
    if present is not None:
        certificate, key = present
        if now < certificate.not_valid_after_utc - RENEW_BEFORE:
            return _Authority(certificate, key)
    log.info("certificate_authority_made", path=str(path))
    made = _make_authority(now)
    pem = made.certificate.public_bytes(Encoding.PEM) + _private_pem(made.key)
    _write(path, pem, durable=True)
    return made


def _make_authority(now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podyard-ca")])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(_subject_key_id(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _ensure_leaf(
    path: Path, wanted: _Leaf, authority: _Authority, now: datetime
) -> Identity:
    present = _load_pair(path)
    if present is None or not _fits(present[0], wanted, authority, now):
        log.info("certificate_made", path=str(path), common_name=wanted.common_name)
        present = _make_leaf(wanted, authority, now)
        certificate, key = present
        _write(path, certificate.public_bytes(Encoding.PEM) + _private_pem(key))
    certificate, key = present
    return Identity(
        wanted.common_name,
        path,
        certificate.public_bytes(Encoding.PEM),
        _private_pem(key),
    )


def _make_leaf(
    wanted: _Leaf, authority: _Authority, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    issuer = authority.certificate.subject
    builder = (
        _builder(wanted.subject(), issuer, public, now, LEAF_VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(wanted.usage(), critical=False)
        .add_extension(_subject_key_id(public), critical=False)
        .add_extension(_authority_key_id(authority), critical=False)
    )
    if wanted.alternative_names:
        names = x509.SubjectAlternativeName(wanted.general_names())
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority.key, hashes.SHA256()), key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    valid: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + valid)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_key_id(public: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _authority_key_id(authority: _Authority) -> x509.AuthorityKeyIdentifier:
    own = authority.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _fits(
    certificate: x509.Certificate,
    wanted: _Leaf,
    authority: _Authority,
    now: datetime,
) -> bool:
    if not (
        certificate.not_valid_before_utc
        <= now
        < certificate.not_valid_after_utc - RENEW_BEFORE
    ):
        return False
    if certificate.subject != wanted.subject():
        return False
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return set(wanted.general_names()) <= _alternatives(certificate)


def _alternatives(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value)


def _ensure_signing_key(path: Path) -> SigningKey:
    present = _read(path)
    key = _load_key(present) if present is not None else None
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _private_pem(key), durable=True)
        log.info("signing_key_made", path=str(path))
    public = key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest())
    return SigningKey(
        _private_pem(key),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        digest.rstrip(b"=").decode(),
    )


def _load_pair(
    path: Path,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    pem = _read(path)
    if pem is None:
        return None
    key = _load_key(pem)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None
    if key is None or certificate.public_key() != key.public_key():
        return None
    return certificate, key


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    begin = pem.find(b"-----BEGIN PRIVATE KEY-----")
    try:
        key = load_pem_private_key(pem[max(begin, 0) :], None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _write(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file at once, readable by its owner alone.

    ``durable`` waits for the disk: losing the authority or the signing key would
    make every certificate and token out there worthless.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    handle = os.open(beside, flags, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def server_tls(serving: Identity, ca_path: Path) -> ssl.SSLContext:
    """Return the context of an HTTPS server that takes client certificates.

    A certificate is asked for but not required; a bad one fails the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(serving.path)
    context.load_verify_locations(cafile=ca_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    # One session to take up again is enough; each costs half a millisecond to make.
    context.num_tickets = 1
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_tls(ca_pem: bytes, client: Identity | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts our authority alone.

    Args:
        ca_pem: the authority's certificate.
        client: who the client is; ``None`` brings a token instead.
    """
    context = ResumingContext()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    if client is not None:
        context.load_cert_chain(client.path)
    context.set_alpn_protocols(["http/1.1"])
    return context
