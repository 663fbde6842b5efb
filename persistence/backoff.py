"""Exponential back-off between attempts, with jitter so that processes that failed together do not retry together."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 10.0


class Backoff:
    """The back-off of one loop."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def next(self) -> float:
        """The next pause, in seconds."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, LONGEST_SECONDS)
        return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Starts again with the shortest pause, after a successful attempt."""
        self._seconds = FIRST_SECONDS
