"""Requests between the task that reads and records them and the servicer that works on them."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from dalston.v1.transcription_pb2 import TranscribeRequest
from prometheus_client import Gauge

from persistence.errors import DiskUnavailable

# What a message costs beside its audio, so that empty ones are bounded, too.
_MESSAGE_BYTES: Final = 128
# Beyond the limit, for what is no audio and so cannot be read back: instructions, messages that will be refused.
_SPARE_BYTES: Final = 256 * 1024
# Divides into frames of every format, and is no more than a client may send at once.
_READ_BYTES: Final = 65_536


_unheard_bytes = Gauge("dalston_unheard_audio_bytes", "Recorded audio that recognition will read back, being behind")


class RecordedAudio(Protocol):
    """Where recorded audio can be read back. Offsets are bytes from the first of the session."""

    def read_audio(self, offset: int, size: int) -> bytes:
        """So many bytes from `offset` on, all of which were appended. Waits for the disk.

        Raises:
            OSError: the disk is broken.
        """

    def keep_from(self, offset: int | None) -> None:
        """Audio from `offset` on will be read back, None: no audio will. What is before may be let go."""


@dataclass(slots=True)
class _Stretch:
    """Recorded audio that is not held."""

    start: int
    end: int


class RequestQueue:
    """An asynchronous iterator of requests that holds about `limit_bytes` of them in memory.

    Beyond that a writer waits, except with audio that `recorded` has: of such only the place is remembered, and it is
    read back when its turn comes, in messages of another size.

    Leaving `anext` early, by a timeout for example, loses no request.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.recorded: RecordedAudio | None = None
        self._held: deque[TranscribeRequest | _Stretch] = deque()
        self._held_bytes = 0
        self._stretches: deque[_Stretch] = deque()
        self._is_ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def put(self, request: TranscribeRequest, offset: int | None = None) -> None:
        """Adds a request, once there is room for it; `offset` is where its audio was recorded.

        It is added even when the wait is cut short by `end` or a cancellation: it is recorded, so it must be heard.
        """
        if self.recorded is not None and offset is not None:
            # Without a pause: what is to be read back must be known as such before it can be let go.
            self._add_recorded(request, offset, self.recorded)
            return
        limit = self.limit_bytes + (_SPARE_BYTES if self.recorded is not None else 0)
        try:
            while self._held and self._held_bytes >= limit and not self._is_ended:
                await self._change()
        finally:
            self._hold(request)

    def end(self, error: BaseException | None = None) -> None:
        """No more requests: the iterator ends, or raises `error`, after those it holds. Only the first call counts."""
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._changed.set()

    def close(self) -> None:
        """Nothing will be read any more: what is recorded may be let go."""
        if self.recorded is not None:
            self.recorded.keep_from(None)
            self.recorded = None
        _unheard_bytes.dec(sum(stretch.end - stretch.start for stretch in self._stretches))
        self._stretches.clear()

    def __aiter__(self) -> "RequestQueue":
        return self

    async def __anext__(self) -> TranscribeRequest:
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            await self._change()
        first = self._held[0]
        if isinstance(first, _Stretch):
            return TranscribeRequest(audio=await self._read_back(first))
        self._remove_first(len(first.audio))
        return first

    def _add_recorded(self, request: TranscribeRequest, offset: int, recorded: RecordedAudio) -> None:
        if self._held_bytes < self.limit_bytes:
            self._hold(request)
            return
        end = offset + len(request.audio)
        _unheard_bytes.inc(len(request.audio))
        last = self._held[-1]
        if isinstance(last, _Stretch) and last.end == offset:
            last.end = end
            return
        stretch = _Stretch(offset, end)
        if not self._stretches:
            recorded.keep_from(offset)
        self._stretches.append(stretch)
        self._append(stretch, 0)

    def _hold(self, request: TranscribeRequest) -> None:
        self._append(request, len(request.audio))

    def _append(self, item: TranscribeRequest | _Stretch, size: int) -> None:
        self._held.append(item)
        self._held_bytes += size + _MESSAGE_BYTES
        self._changed.set()

    async def _read_back(self, stretch: _Stretch) -> bytes:
        recorded = self.recorded
        assert recorded is not None  # noqa: S101 - stretches are made of recorded audio only
        size = min(stretch.end - stretch.start, _READ_BYTES)
        try:
            audio = await asyncio.to_thread(recorded.read_audio, stretch.start, size)
        except OSError as error:
            raise DiskUnavailable("the recording cannot be read back") from error
        stretch.start += size
        _unheard_bytes.dec(size)
        if stretch.start == stretch.end:
            self._stretches.popleft()
            self._remove_first(0)
        recorded.keep_from(self._stretches[0].start if self._stretches else None)
        return audio

    def _remove_first(self, size: int) -> None:
        self._held.popleft()
        self._held_bytes -= size + _MESSAGE_BYTES
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
