"""Objects to text: tables and JSON. Pure."""

from collections.abc import Sequence
from datetime import datetime

import orjson


def build_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns three spaces apart, as kubectl prints them."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    texts = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        texts.append("   ".join(cells).rstrip())
    return "\n".join(texts)


def build_json(value: object) -> str:
    """Return indented JSON."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def build_age(since: datetime, now: datetime) -> str:
    """Return how long ago, as kubectl shows ages (``5m``, ``3h``)."""
    seconds = max(0, int((now - since).total_seconds()))
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def build_size(size_bytes: int) -> str:
    """Return a size in decimal units, as image tools show it (``71.2MB``)."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"
