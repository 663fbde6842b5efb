"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double, each between half and all of its length, so that many callers do not come back at once."""

    first: float = 0.2
    longest: float = 10.0

    def pause(self, attempt: int, at_least: float | None = None) -> float:
        """Seconds to wait after failed attempt `attempt`, which is 1 for the first.

        `at_least` is what the service asked for; it may be longer than `longest`.
        """
        pause = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return max(at_least or 0.0, pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads callers, hides nothing
