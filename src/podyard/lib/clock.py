"""The one clock: wall time as aware UTC datetimes, spans as float seconds."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a shell asks about time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""


class SystemClock:
    """The machine's own clocks.

    Spans come from CLOCK_BOOTTIME where there is one, so that a suspended
    machine does not stretch grace periods.
    """

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds since boot, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
