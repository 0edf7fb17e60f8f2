"""Where our own log goes: JSON lines in a file, or readable lines on a terminal."""

import logging
import logging.handlers
import sys
from pathlib import Path

import structlog

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def set_up_logging(level: str, file: Path | None) -> None:
    """Send log events to a rotated file (10 MB, 3 kept), or to stderr."""
    if file is None:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
                structlog.processors.format_exc_info,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
        return
    handler = logging.handlers.RotatingFileHandler(
        file, maxBytes=10_000_000, backupCount=2, delay=True
    )
    file.touch(mode=0o640)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    podyard = logging.getLogger("podyard")
    podyard.setLevel(_LEVELS[level])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: logging.getLogger("podyard"),
        cache_logger_on_first_use=True,
    )
