"""What a start does to its own process."""

import os
import ssl

from podyard.app.daemon import _no_authorities


def test_the_authorities_of_the_system_are_out_of_sight_for_a_while_only(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/mine.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    with _no_authorities():
        seen = ssl.create_default_context().get_ca_certs()

    assert seen == []
    assert os.environ["SSL_CERT_FILE"] == "/etc/ssl/mine.pem"
    assert "SSL_CERT_DIR" not in os.environ
