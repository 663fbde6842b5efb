"""Requests that can be ended from outside."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Interruptible(Generic[T]):
    """An asynchronous iterator that gives what another gives, until it is ended.

    What was given is not taken back: whoever iterates gets the error in place of the next item.
    """

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = aiter(items)
        self._error: Exception | None = None
        self._waiting: asyncio.Timeout | None = None

    def end(self, error: Exception) -> None:
        """From now on the iterator raises the error, also where it is waited for already. The first error counts."""
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
