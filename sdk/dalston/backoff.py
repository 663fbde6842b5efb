"""Exponential back-off."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double, with jitter down to half their length so that callers do not retry simultaneously."""

    first: float = 0.2
    longest: float = 10.0

    def pause(self, attempt: int, at_least: float | None = None) -> float:
        """Seconds to wait after the failed attempt number `attempt`, counted from 1.

        `at_least` is the pause that the service requested; it may exceed `longest`.
        """
        pause = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return max(at_least or 0.0, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not security
