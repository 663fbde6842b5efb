"""The queue of events for the caller."""

from __future__ import annotations

import asyncio
from collections import deque

from dalston.events import Event


class EventQueue:
    """A bounded queue that can be closed, with one consumer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: deque[Event] = deque()
        self._is_closed = False
        self._wake = asyncio.Event()

    async def put(self, event: Event) -> None:
        """Appends an event; waits for room."""
        while len(self._events) >= self._limit and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()
        self._events.append(event)
        self._wake.set()

    async def get(self) -> Event | None:
        """Removes and returns the next event; None after the last."""
        while not self._events and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()
        event = self._events.popleft() if self._events else None
        self._wake.set()
        return event

    def close(self) -> None:
        """Ends the queue. Events that it holds can still be read."""
        self._is_closed = True
        self._wake.set()
