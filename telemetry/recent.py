"""Quantiles of recent values. Pure, in bounded memory."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

WINDOW_SECONDS: Final = 300.0
MOST_VALUES: Final = 4096


class Recent:
    """The values of the last minutes, at most so many of them. Adding one takes constant time."""

    def __init__(
        self,
        seconds: float = WINDOW_SECONDS,
        most: int = MOST_VALUES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._values: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, value: float) -> None:
        """Adds a value of this moment."""
        self._values.append((self._clock(), value))

    def __len__(self) -> int:
        """How many values the window has."""
        self._forget()
        return len(self._values)

    def values(self) -> list[float]:
        """The values of the window, in ascending order."""
        self._forget()
        return sorted(value for _, value in self._values)

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        while self._values and self._values[0][0] < oldest:
            self._values.popleft()


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed.

    Args:
        ascending: at least one value.
        share: above 0, at most 1.
    """
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
