"""Requests between the task that reads and records them and the servicer that works on them."""

import asyncio
from collections import deque

from dalston.v1.transcription_pb2 import TranscribeRequest

# What a message costs beside its audio, so that empty ones are bounded, too.
_MESSAGE_BYTES = 128


class RequestQueue:
    """An asynchronous iterator of requests that holds at most about `limit_bytes` of them.

    Leaving `anext` early, by a timeout for example, loses no request.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: deque[TranscribeRequest] = deque()
        self._held_bytes = 0
        self._is_ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def put(self, request: TranscribeRequest) -> None:
        """Adds a request, once there is room for it.

        It is added even when the wait is cut short by `end` or a cancellation: it is recorded, so it must be heard.
        """
        try:
            while self._held and self._held_bytes >= self.limit_bytes and not self._is_ended:
                await self._change()
        finally:
            self._held.append(request)
            self._held_bytes += len(request.audio) + _MESSAGE_BYTES
            self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """No more requests: the iterator ends, or raises `error`, after those it holds. Only the first call counts."""
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._changed.set()

    def __aiter__(self) -> "RequestQueue":
        return self

    async def __anext__(self) -> TranscribeRequest:
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            await self._change()
        request = self._held.popleft()
        self._held_bytes -= len(request.audio) + _MESSAGE_BYTES
        self._changed.set()
        return request

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
