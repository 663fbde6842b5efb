"""What keeps a session from being stored as it should be, and since when. No I/O."""

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
"""Never ends: what is lost does not come back."""

# What a client is told.
_NAMES: Final = {OBJECT_STORE: "object_store", PARTS: "database", ROWS: "database", DISK: "disk", LOST: "audio_lost"}

# How long each may last before it is worth a word: what a retry mends is none. A full disk holds the stream back, so
# its client should know at once.
_PATIENCE_SECONDS: Final = {OBJECT_STORE: 5.0, PARTS: 5.0, ROWS: 5.0, DISK: 0.0, LOST: 0.0}


class Degradations:
    """One session's troubles. Whoever meets one notes its beginning and its end; `review` finds those that last."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._lasting: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    @property
    def lasting(self) -> frozenset[str]:
        """Those that have lasted too long, as of the latest review."""
        return self._lasting

    def begin(self, what: str, since: float | None = None) -> None:
        """Something is in the way, now or since a time of the monotonic clock; noted once until it ends."""
        self._since.setdefault(what, time.monotonic() if since is None else since)

    def end(self, what: str) -> None:
        """It is not any more."""
        self._since.pop(what, None)

    def has(self, what: str) -> bool:
        """Whether it is in the way now."""
        return what in self._since

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """A step that may be in the way until it succeeds, in this attempt or a later one."""
        self.begin(what)
        yield
        self.end(what)

    def review(self) -> None:
        """Finds the troubles that last. To be called about once a second."""
        now = time.monotonic()
        lasting = frozenset(
            _NAMES[what] for what, since in self._since.items() if now - since >= _PATIENCE_SECONDS[what]
        )
        if lasting != self._lasting:
            self._lasting = lasting
            self._changed.set()

    async def change(self) -> frozenset[str]:
        """Waits for a review that finds others than the one before; gives those it found."""
        await self._changed.wait()
        self._changed.clear()
        return self._lasting
