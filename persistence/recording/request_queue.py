"""The queue of requests between the task that reads and records them and the servicer."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from dalston.v1.transcription_pb2 import TranscribeRequest
from prometheus_client import Gauge

from domain.audio_message import MAX_AUDIO_MESSAGE_BYTES, Checked
from persistence.errors import DiskUnavailable

Request: TypeAlias = Checked[TranscribeRequest]

# What a message costs beside its audio, so that messages without audio are bounded, too.
_MESSAGE_BYTES: Final = 128
# Beyond the limit, for messages that cannot be read back from disk: controls, and messages that will be refused.
_SPARE_BYTES: Final = 256 * 1024


_unread_bytes = Gauge("dalston_unheard_audio_bytes", "Recorded audio that lagging recognition will read back from disk")


class RecordedAudio(Protocol):
    """Recorded audio that can be read back. Offsets are bytes from the first one of the session."""

    def read_audio(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes from `offset` on, all of which were appended. Waits for the disk.

        Raises:
            OSError: the disk is broken.
        """

    def keep_from(self, offset: int | None) -> None:
        """Keeps the audio from `offset` on, which will be read back, and may drop what is before; None keeps none."""


@dataclass(slots=True)
class _Stretch:
    """Recorded audio that is not in memory."""

    start: int
    end: int


class RequestQueue:
    """An asynchronous iterator of requests that holds about `limit_bytes` of them in memory.

    Beyond that `put` waits, except for audio that `recorded` has: of such audio the queue remembers only the place, and
    reads it back when its turn comes, in messages of another size.

    Cancelling `anext`, for example by a timeout, loses no request.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.recorded: RecordedAudio | None = None
        self._held: deque[Request | _Stretch] = deque()
        self._held_bytes = 0
        self._stretches: deque[_Stretch] = deque()
        self._is_ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    async def put(self, request: Request, offset: int | None = None) -> None:
        """Adds a request as soon as there is room for it; `offset` is the place of its audio in the recording.

        The request is added even if `end` or a cancellation cuts the wait short: it is recorded, so it must be
        transcribed.
        """
        if self.recorded is not None and offset is not None:
            # Without a pause: `recorded` must know what is to be read back before it can drop it.
            self._add_recorded(request, offset, self.recorded)
            return
        limit = self.limit_bytes + (_SPARE_BYTES if self.recorded is not None else 0)
        try:
            while self._held and self._held_bytes >= limit and not self._is_ended:
                await self._change()
        finally:
            self._hold(request)

    def end(self, error: BaseException | None = None) -> None:
        """Ends the iterator, or makes it raise `error`, after the requests it holds. Only the first call counts."""
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._changed.set()

    def close(self) -> None:
        """Allows `recorded` to drop its audio: nothing will be read any more."""
        if self.recorded is not None:
            self.recorded.keep_from(None)
            self.recorded = None
        _unread_bytes.dec(sum(stretch.end - stretch.start for stretch in self._stretches))
        self._stretches.clear()

    def __aiter__(self) -> "RequestQueue":
        return self

    async def __anext__(self) -> Request:
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            await self._change()
        first = self._held[0]
        if isinstance(first, _Stretch):
            return Checked(TranscribeRequest(audio=await self._read_back(first)))
        self._remove_first(len(first.message.audio))
        return first

    def _add_recorded(self, request: Request, offset: int, recorded: RecordedAudio) -> None:
        if self._held_bytes < self.limit_bytes:
            self._hold(request)
            return
        size = len(request.message.audio)
        end = offset + size
        _unread_bytes.inc(size)
        last = self._held[-1]
        if isinstance(last, _Stretch) and last.end == offset:
            last.end = end
            return
        stretch = _Stretch(offset, end)
        if not self._stretches:
            recorded.keep_from(offset)
        self._stretches.append(stretch)
        self._append(stretch, 0)

    def _hold(self, request: Request) -> None:
        self._append(request, len(request.message.audio))

    def _append(self, item: Request | _Stretch, size: int) -> None:
        self._held.append(item)
        self._held_bytes += size + _MESSAGE_BYTES
        self._changed.set()

    async def _read_back(self, stretch: _Stretch) -> bytes:
        recorded = self.recorded
        assert recorded is not None  # noqa: S101 - stretches are made of recorded audio only
        # The limit is a multiple of every frame size, so that what is read back are whole sample frames.
        size = min(stretch.end - stretch.start, MAX_AUDIO_MESSAGE_BYTES)
        try:
            audio = await asyncio.to_thread(recorded.read_audio, stretch.start, size)
        except OSError as error:
            raise DiskUnavailable("the recording cannot be read back") from error
        stretch.start += size
        _unread_bytes.dec(size)
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
