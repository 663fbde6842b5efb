"""What the fault tests have counted, printed when they are over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Sums over all scenarios of a run."""

    sums: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> None:
        self.sums[name] += count

    def note(self, line: str) -> None:
        """A measurement that is no sum."""
        self.lines.append(line)

    def summary(self) -> list[str]:
        """What there is to print."""
        return [f"{name}: {count:,}" for name, count in self.sums.items()] + self.lines


FIGURES = Figures()
"""Of this run."""
