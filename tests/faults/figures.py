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

    def handed_over(self) -> tuple[dict[str, int], list[str]]:
        """All of it, in what can be sent from process to process."""
        return dict(self.sums), self.lines

    def take_over(self, sums: dict[str, int], lines: list[str]) -> None:
        """Adds what another process has counted. What all of them note, as the seed, is there once."""
        self.sums.update(sums)
        self.lines += [line for line in lines if line not in self.lines]

    def summary(self) -> list[str]:
        """What there is to print."""
        return [f"{name}: {count:,}" for name, count in self.sums.items()] + self.lines


FIGURES = Figures()
"""Of this run."""
