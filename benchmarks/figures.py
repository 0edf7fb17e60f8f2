"""Numbers and their table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p50(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


@dataclass
class Report:
    """Rows of what, figure, ratio or aim; printed and written as Markdown."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, beside: str = "") -> None:
        """Add and print a row."""
        self.rows.append((what, figure, beside))
        print(f"{what:<58} {figure:<34} {beside}", flush=True)

    def markdown(self) -> str:
        """Return the table."""
        lines = ["| what | figure | beside |", "|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join(lines) + "\n"
