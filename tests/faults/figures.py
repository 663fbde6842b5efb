"""The figures that the fault tests count, printed at the end of a run."""

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
        """Adds a measurement that is not a sum."""
        self.lines.append(line)

    def handed_over(self) -> tuple[dict[str, int], list[str]]:
        """All figures, as values that can be sent to another process."""
        return dict(self.sums), self.lines

    def take_over(self, sums: dict[str, int], lines: list[str]) -> None:
        """Adds the figures of another process. A value that all processes note, such as the seed, is kept once."""
        self.sums.update(sums)
        self.lines += [line for line in lines if line not in self.lines]

    def summary(self) -> list[str]:
        """The lines to print."""
        return [f"{name}: {count:,}" for name, count in self.sums.items()] + self.lines


FIGURES = Figures()
"""Of this run."""
