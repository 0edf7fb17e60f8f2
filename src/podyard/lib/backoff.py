"""Exponential back-off as arithmetic: no clock, no sleep."""

from podyard.lib.values import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay that doubles from ``base_s`` to ``cap_s``.

    Attributes:
        base_s: the first delay, seconds.
        cap_s: the longest delay, seconds.
        factor: what each delay is multiplied with.
    """

    base_s: float
    cap_s: float
    factor: float = 2.0

    def first(self) -> float:
        """Return the first delay in seconds."""
        return min(self.base_s, self.cap_s)

    def after(self, delay_s: float) -> float:
        """Return the delay that follows ``delay_s`` (0 means none yet)."""
        if delay_s <= 0:
            return self.first()
        return min(delay_s * self.factor, self.cap_s)
