"""Throw-away certificates for tests that speak TLS."""

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: str
    key: str


def make_authority() -> Pair:
    """Make a certificate authority."""
    return _make("test authority", None)


def make_leaf(authority: Pair, name: str, ip: str = "") -> Pair:
    """Make a certificate for a server at ``ip``, or for a client."""
    return _make(name, authority, ip)


def _make(name: str, issuer: Pair | None, ip: str = "") -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer: ec.EllipticCurvePrivateKey = key
    issuer_name = subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key(issuer.key.encode(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
        issuer_name = x509.load_pem_x509_certificate(issuer.cert.encode()).subject
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
    )
    if ip:
        address = x509.IPAddress(ipaddress.ip_address(ip))
        builder = builder.add_extension(
            x509.SubjectAlternativeName([address]), critical=False
        )
    cert = builder.sign(signer, hashes.SHA256())
    return Pair(
        cert.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
