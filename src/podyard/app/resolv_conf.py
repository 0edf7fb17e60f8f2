"""The host's resolver file, read for Pods and for cluster DNS."""

from pathlib import Path

import structlog

from podyard.api.runtime import DNSConfig
from podyard.node.environment.build import parse_resolv_conf

log = structlog.get_logger()


def read_resolv_conf(path: str) -> DNSConfig:
    """Return what a resolver file says (blocking); one that cannot be read, nothing.

    Args:
        path: the file; empty for none.
    """
    text = ""
    if path:
        try:
            text = Path(path).read_text(errors="replace")
        except OSError as error:
            log.warning("resolv_conf_unreadable", path=path, error=error.strerror)
    return parse_resolv_conf(text)
