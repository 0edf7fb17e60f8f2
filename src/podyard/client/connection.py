"""How to reach an API server, and as whom."""

import os
import ssl
from dataclasses import field
from pathlib import Path

from podyard.lib.tls import ResumingContext
from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class ApiConnection:
    """A server's address and this client's credentials.

    The certificate wins over the token, the token file over the token. Secrets are
    not shown by ``repr``.

    Attributes:
        server: ``https://host:port``, with a path where the API is behind one.
        ca_pem: the certificate authority; empty means the system's.
        client_cert_pem: the client certificate with its chain, or empty.
        client_key_pem: its key.
        token: a bearer token, or empty.
        token_file: a file with a bearer token that is read again now and then.
        insecure: do not verify the server's certificate.
        tls_server_name: the name to verify, where it differs from the address.
        proxy_url: an HTTP proxy, or empty.
        namespace: the namespace of a kubeconfig's context, or empty.
    """

    server: str
    ca_pem: str = ""
    client_cert_pem: str = field(default="", repr=False)
    client_key_pem: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    namespace: str = ""


class CredentialsError(ValueError):
    """The certificates or keys of a connection cannot be used."""


def build_ssl_context(connection: ApiConnection) -> ssl.SSLContext:
    """Return the TLS context for a connection.

    Raises:
        CredentialsError: a certificate or key is not usable.
    """
    try:
        context = ResumingContext()
        if connection.ca_pem:
            context.load_verify_locations(cadata=connection.ca_pem)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsError(
            f"the certificate authority for {connection.server} is not usable: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if connection.client_cert_pem:
        _load_pair(context, connection)
    return context


def _load_pair(context: ssl.SSLContext, connection: ApiConnection) -> None:
    """Load the pair from memory: ssl only takes files, so give it anonymous ones."""
    pair = f"{connection.client_cert_pem}\n{connection.client_key_pem}\n".encode()
    fd = os.memfd_create("podyard-client-certificate", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(pair)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(
            f"the client certificate for {connection.server} is not usable: {error}"
        ) from error
    finally:
        os.close(fd)
