"""A client certificate's subject as a user: CN is the name, O are the groups.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
"""

import hashlib

from cryptography import x509
from cryptography.x509.oid import NameOID

from podyard.server.authn.parts import PeerCertificate

_UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")


def parse_peer(der: bytes) -> PeerCertificate | None:
    """Return the subject of a verified client certificate.

    Args:
        der: the certificate as ``getpeercert(True)`` gives it.

    Returns:
        ``None`` where the subject has no common name, and so is no user.
    """
    subject = x509.load_der_x509_certificate(der).subject
    names = _texts(subject, NameOID.COMMON_NAME)
    if not names or not names[0]:
        return None
    uids = _texts(subject, _UID)
    return PeerCertificate(
        names[0],
        tuple(_texts(subject, NameOID.ORGANIZATION_NAME)),
        uids[0] if uids else "",
        hashlib.sha256(der).hexdigest(),
    )


def _texts(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    values = (attribute.value for attribute in subject.get_attributes_for_oid(oid))
    return [text if isinstance(text, str) else text.decode() for text in values]
