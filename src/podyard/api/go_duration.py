"""Durations as Go prints them: ``10s``, ``1m20s``, ``5m0s``."""


def go_duration(seconds: float) -> str:
    """Return a span as Go's ``time.Duration`` prints it, to the millisecond."""
    millis = round(seconds * 1000)
    if millis == 0:
        return "0s"
    sign = "-" if millis < 0 else ""
    millis = abs(millis)
    if millis < 1000:
        return f"{sign}{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(rest, 1000)
    text = f"{whole}.{fraction:03}".rstrip("0") if fraction else str(whole)
    text += "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"
