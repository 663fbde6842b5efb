"""An asynchronous iterator that can be ended from outside."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Interruptible(Generic[T]):
    """Yields the items of another iterator until it is ended.

    Its consumer then gets the error in place of the next item.
    """

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = aiter(items)
        self._error: Exception | None = None
        self._waiting: asyncio.Timeout | None = None

    def end(self, error: Exception) -> None:
        """Makes the iterator raise `error` from now on, also if its consumer waits already. The first error counts."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.reschedule(0.0)

    def __aiter__(self) -> "Interruptible[T]":
        return self

    async def __anext__(self) -> T:
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await anext(self._items)
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._waiting = None
