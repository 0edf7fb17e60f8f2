"""Cron schedules: the five fields and the ``@`` forms.

Source: robfig/cron's standard parser, which CronJobs use, and
https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
"""

import re
from typing import Final

from podyard.lib.values import dataclass

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        [
            "jan",
            "feb",
            "mar",
            "apr",
            "may",
            "jun",
            "jul",
            "aug",
            "sep",
            "oct",
            "nov",
            "dec",
        ],
        start=1,
    )
}
_DAYS: Final = {
    name: number
    for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])
}
_DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}


class CronError(ValueError):
    """The text is no schedule; the message is the upstream parser's."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a CronJob is due.

    Attributes:
        minutes: 0 to 59.
        hours: 0 to 23.
        days: of the month, 1 to 31.
        months: 1 to 12.
        weekdays: 0 (Sunday) to 6.
        any_day: no day of the month was named; only ``weekdays`` counts.
        any_weekday: no weekday was named; only ``days`` counts.
        every_s: the interval of an ``@every`` schedule, else ``None``.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = True
    any_weekday: bool = True
    every_s: float | None = None


def parse_schedule(text: str) -> Schedule:
    """Parse a schedule of five fields or an ``@`` form.

    Raises:
        CronError: it is none; the message is upstream's.
    """
    if not text:
        raise CronError("empty spec string")
    if text.startswith("@"):
        return _parse_descriptor(text)
    fields = text.split()
    if len(fields) != 5:
        shown = f"[{' '.join(fields)}]"
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: {shown}")
    return Schedule(
        minutes=_parse_field(fields[0], 0, 59),
        hours=_parse_field(fields[1], 0, 23),
        days=_parse_field(fields[2], 1, 31),
        months=_parse_field(fields[3], 1, 12, _MONTHS),
        weekdays=_parse_field(fields[4], 0, 6, _DAYS),
        any_day=_is_any(fields[2]),
        any_weekday=_is_any(fields[4]),
    )


def _is_any(text: str) -> bool:
    return any(part[:1] in {"*", "?"} for part in text.split(","))


def _parse_descriptor(text: str) -> Schedule:
    standard = _DESCRIPTORS.get(text)
    if standard is not None:
        return parse_schedule(standard)
    if not text.startswith(_EVERY):
        raise CronError(f"unrecognized descriptor: {text}")
    span = text.removeprefix(_EVERY)
    if not _DURATION.fullmatch(span):
        raise CronError(
            f'failed to parse duration {text}: time: invalid duration "{span}"'
        )
    parts = _DURATION_PART.findall(span)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return Schedule(every_s=max(1.0, float(int(seconds))))


def _parse_field(
    text: str, low: int, high: int, names: dict[str, int] | None = None
) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        if part:
            values.update(_parse_range(part, low, high, names or {}))
    return frozenset(values)


def _parse_range(text: str, low: int, high: int, names: dict[str, int]) -> range:
    spans = text.split("/")
    ends = spans[0].split("-")
    if ends[0] in {"*", "?"}:
        start, end = low, high
    else:
        start = _parse_number(ends[0], names)
        if len(ends) > 2:
            raise CronError(f"too many hyphens: {text}")
        end = _parse_number(ends[1], names) if len(ends) == 2 else start
    step = 1
    if len(spans) > 2:
        raise CronError(f"too many slashes: {text}")
    if len(spans) == 2:
        step = _parse_number(spans[1], {})
        if len(ends) == 1:
            end = high
    _check_range(text, (start, end), (low, high), step)
    return range(start, end + 1, step)


def _check_range(
    text: str, span: tuple[int, int], limits: tuple[int, int], step: int
) -> None:
    (start, end), (low, high) = span, limits
    if start < low:
        raise CronError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise CronError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise CronError(
            f"beginning of range ({start}) beyond end of range ({end}): {text}"
        )
    if step == 0:
        raise CronError(f"step of range should be a positive number: {text}")


def _parse_number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not text.isascii() or not text.isdigit():
        raise CronError(
            f"failed to parse int from {text}: strconv.Atoi: parsing "
            f'"{text}": invalid syntax'
        )
    return int(text[:12])
