"""The authority, its certificates and the signing key."""

import contextlib
import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from podyard.app.pki import (
    Identity,
    Names,
    PkiError,
    client_tls,
    ensure_pki,
    server_tls,
)
from podyard.lib.clock import SystemClock

# Handshakes read the machine's clock, so certificates are made as of today.
NOW = SystemClock().now()
NAMES = Names("n1", ("10.0.0.1", "10.96.0.1", "box.example"), ("10.0.0.1",))


def _certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate_pem)


def _shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Shake hands in memory; return the server's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    open_sides = {here, there}
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                open_sides.discard(side)
            except ssl.SSLWantReadError:
                pass
    assert not open_sides
    return there


def test_a_second_start_makes_nothing_anew(tmp_path: Path) -> None:
    first = ensure_pki(tmp_path / "pki", NAMES, now=NOW)

    assert ensure_pki(tmp_path / "pki", NAMES, now=NOW) == first


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    ensure_pki(tmp_path / "pki", NAMES, now=NOW)

    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "pki").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("field", "common_name", "organizations"),
    [
        pytest.param("admin", "podyard-admin", ["system:masters"], id="admin"),
        pytest.param("scheduler", "system:kube-scheduler", [], id="scheduler"),
        pytest.param(
            "controller_manager", "system:kube-controller-manager", [], id="controllers"
        ),
        pytest.param("node_client", "system:node:n1", ["system:nodes"], id="node"),
        pytest.param("api_server_client", "podyard-apiserver", [], id="api-server"),
    ],
)
def test_each_identity_has_its_own_subject(
    tmp_path: Path, field: str, common_name: str, organizations: list[str]
) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    subject = _certificate(getattr(pki, field)).subject
    assert [a.value for a in subject.get_attributes_for_oid(x509.OID_COMMON_NAME)] == [
        common_name
    ]
    assert [
        a.value for a in subject.get_attributes_for_oid(x509.OID_ORGANIZATION_NAME)
    ] == organizations


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "10.96.0.1",
        "box.example",
        "kubernetes",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ],
)
def test_clients_reach_the_api_server_by_every_name(tmp_path: Path, name: str) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    side = _shake(
        server_tls(pki.api_server, pki.ca_path), client_tls(pki.ca_pem, pki.admin), name
    )

    peer = side.getpeercert()
    assert peer is not None
    assert ((("commonName", "podyard-admin"),)) in peer["subject"]
    assert side.selected_alpn_protocol() == "http/1.1"


def test_a_client_may_come_without_certificate(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    side = _shake(
        server_tls(pki.api_server, pki.ca_path), client_tls(pki.ca_pem), "localhost"
    )

    assert side.getpeercert() is None or side.getpeercert() == {}


def test_a_name_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    with pytest.raises(ssl.SSLCertVerificationError):
        _shake(
            server_tls(pki.api_server, pki.ca_path),
            client_tls(pki.ca_pem),
            "evil.example",
        )


def test_a_new_name_renews_only_the_certificate_it_is_missing_in(
    tmp_path: Path,
) -> None:
    first = ensure_pki(tmp_path, NAMES, now=NOW)

    names = Names("n1", (*NAMES.api_server, "10.0.0.9"), NAMES.node)
    second = ensure_pki(tmp_path, names, now=NOW)

    assert second.api_server.certificate_pem != first.api_server.certificate_pem
    assert second.node_serving == first.node_serving
    assert second.ca_pem == first.ca_pem
    assert second.service_accounts == first.service_accounts


def test_certificates_are_renewed_before_they_end_and_the_authority_is_not(
    tmp_path: Path,
) -> None:
    first = ensure_pki(tmp_path, NAMES, now=NOW)

    second = ensure_pki(tmp_path, NAMES, now=NOW + timedelta(days=320))

    assert second.ca_pem == first.ca_pem
    assert second.admin.certificate_pem != first.admin.certificate_pem


def test_a_lost_authority_renews_everything(tmp_path: Path) -> None:
    first = ensure_pki(tmp_path, NAMES, now=NOW)
    (tmp_path / "ca.pem").unlink()

    second = ensure_pki(tmp_path, NAMES, now=NOW)

    assert second.ca_pem != first.ca_pem
    assert (tmp_path / "ca.crt").read_bytes() == second.ca_pem
    _shake(
        server_tls(second.api_server, second.ca_path),
        client_tls(second.ca_pem, second.admin),
        "localhost",
    )


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    ensure_pki(tmp_path, NAMES, now=NOW)
    (tmp_path / "admin.pem").write_bytes(b"rubbish")
    (tmp_path / "service-accounts.key").write_bytes(b"")

    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    assert _certificate(pki.admin).subject
    assert len(pki.service_accounts.key_id) == 43


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("in the way")

    with pytest.raises(PkiError, match="cannot keep certificates in"):
        ensure_pki(tmp_path / "pki", NAMES, now=NOW)


def test_keys_are_not_shown(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)

    assert "PRIVATE" not in repr(pki)


def _connect(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands and read a first byte, with which the ticket comes."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for side in (ours, theirs, ours, theirs):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    theirs.write(b"x")
    assert ours.read(1) == b"x"
    peer = theirs.getpeercert()
    assert peer is not None
    assert ((("commonName", "podyard-admin"),)) in peer["subject"]
    return ours


def test_a_later_connection_takes_up_the_session_and_is_the_same_client(
    tmp_path: Path,
) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)
    server = server_tls(pki.api_server, pki.ca_path)
    client = client_tls(pki.ca_pem, pki.admin)

    reused = [_connect(server, client).session_reused for _ in range(3)]

    assert reused == [False, True, True]


def test_a_server_that_does_not_know_the_session_is_asked_who_it_is(
    tmp_path: Path,
) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)
    client = client_tls(pki.ca_pem, pki.admin)
    _connect(server_tls(pki.api_server, pki.ca_path), client)

    again = _connect(server_tls(pki.api_server, pki.ca_path), client)

    assert not again.session_reused


def test_connections_that_begin_at_once_do_not_wait_for_a_session(
    tmp_path: Path,
) -> None:
    pki = ensure_pki(tmp_path, NAMES, now=NOW)
    client = client_tls(pki.ca_pem, pki.admin)
    first = client.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a")
    with contextlib.suppress(ssl.SSLWantReadError):
        first.do_handshake()

    second = client.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a")

    assert not second.session_reused
