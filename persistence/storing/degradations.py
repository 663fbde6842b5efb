"""Conditions that keep a session from being stored as it should be, and since when they last. No I/O."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

OBJECT_STORE: Final = "object_store"
PARTS: Final = "parts"
ROWS: Final = "rows"
DISK: Final = "disk"
LOST: Final = "lost"
"""Never ends: lost audio does not come back."""

# The names that a client receives.
_NAMES: Final = {OBJECT_STORE: "object_store", PARTS: "database", ROWS: "database", DISK: "disk", LOST: "audio_lost"}

# How long each may last before the client is warned: a retry may end it. A full disk holds the stream back, so the
# client is warned at once.
_GRACE_SECONDS: Final = {OBJECT_STORE: 5.0, PARTS: 5.0, ROWS: 5.0, DISK: 0.0, LOST: 0.0}


class Degradations:
    """The degradations of one session: callers note when each begins and ends; `review` finds those that last."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._lasting: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    @property
    def lasting(self) -> frozenset[str]:
        """Those that lasted too long at the latest review."""
        return self._lasting

    @property
    def lasting_since(self) -> dict[str, float]:
        """Those that lasted too long at the latest review and are in progress, and when each began, in monotonic
        time."""
        since: dict[str, float] = {}
        for what, began in self._since.items():
            if (name := _NAMES[what]) in self._lasting:
                since[name] = min(began, since.get(name, began))
        return since

    def begin(self, what: str, since: float | None = None) -> None:
        """Notes that one begins, now or at a time of the monotonic clock; until it ends, further calls do nothing."""
        self._since.setdefault(what, time.monotonic() if since is None else since)

    def end(self, what: str) -> None:
        """Notes that it has ended."""
        self._since.pop(what, None)

    def has(self, what: str) -> bool:
        """Whether it is in progress."""
        return what in self._since

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Notes one that lasts until the step in the block succeeds, in this attempt or a later one."""
        self.begin(what)
        yield
        self.end(what)

    def review(self) -> None:
        """Finds the degradations that last. To be called about once a second."""
        now = time.monotonic()
        lasting = frozenset(_NAMES[what] for what, since in self._since.items() if now - since >= _GRACE_SECONDS[what])
        if lasting != self._lasting:
            self._lasting = lasting
            self._changed.set()

    async def change(self) -> frozenset[str]:
        """Waits for a review with another result than the one before, and returns that result."""
        await self._changed.wait()
        self._changed.clear()
        return self._lasting
