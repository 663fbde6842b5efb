"""How long a failed call is retried."""

from __future__ import annotations

import asyncio

from dalston.backoff import Backoff
from dalston.errors import Busy, DalstonError
from dalston.events import Reconnecting

_BACKOFF = Backoff(first=0.25, longest=15.0)


class Outage:
    """The time since the first of several failures in a row."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._attempt = 0

    def next_attempt(self, error: DalstonError, seconds: float) -> Reconnecting | None:
        """The next attempt after a failure; None if the outage has lasted for `seconds`."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        left = self._began + seconds - now
        if left <= 0:
            return None
        self._attempt += 1
        pause = _BACKOFF.pause(self._attempt, error.retry_after if isinstance(error, Busy) else None)
        return Reconnecting(self._attempt, min(pause, left), error.message)

    def end(self) -> None:
        """Forgets the failures: a call succeeded."""
        self._began, self._attempt = None, 0
