"""Events on their way to the caller."""

from __future__ import annotations

import asyncio
from collections import deque

from dalston.events import Event


class EventQueue:
    """A bounded queue with an end. One puts at a time, one gets."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._events: deque[Event] = deque()
        self._is_closed = False
        self._wake = asyncio.Event()

    async def put(self, event: Event) -> None:
        """Waits for room."""
        while len(self._events) >= self._most and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()
        self._events.append(event)
        self._wake.set()

    async def get(self) -> Event | None:
        """The next event; None after the last."""
        while not self._events and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()
        event = self._events.popleft() if self._events else None
        self._wake.set()
        return event

    def close(self) -> None:
        """No more is put; what is there can be got."""
        self._is_closed = True
        self._wake.set()
