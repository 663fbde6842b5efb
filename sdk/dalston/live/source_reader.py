"""From the source of the audio into memory: not more than is allowed, and not faster than asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dalston.errors import AudioOverflow
from dalston.events import Warned
from dalston.live.audio_stream import Source
from dalston.live.send_queue import SendQueue

_READ_AHEAD_BYTES = 256 * 1024
"""Audio that is not sent yet, of a source that can wait."""
_STEP_SECONDS = 0.1
"""In which a file is sent that is paced."""
_STEP_BYTES = 64 * 1024

Emit = Callable[[Warned], Awaitable[None]]


class SourceReader:
    """Moves the audio of one transcription.

    Args:
        spare: the service has the audio before this position, though not safely. Counts for live sources only.
    """

    def __init__(
        self,
        source: Source,
        send_queue: SendQueue,
        pace: float | None,
        max_kept_bytes: int,
        spare: Callable[[], int],
        emit: Emit,
    ) -> None:
        self._source = source
        self._send_queue = send_queue
        self._pace = pace
        self._max_kept_bytes = max_kept_bytes
        self._spare = spare
        self._emit = emit
        self._has_warned = False

    async def run(self) -> None:
        """Returns when the source has ended.

        Raises:
            TypeError: a piece is not of bytes.
            AudioOverflow: a source that does not wait came too fast for too long.
            Exception: what the source itself raised.
        """
        frame, began = self._send_queue.format.frame_bytes, asyncio.get_running_loop().time()
        step = self._send_queue.format.size(_STEP_SECONDS) if self._pace else _STEP_BYTES // frame * frame
        rest = b""
        async for piece in self._source.pieces:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(f"audio comes in pieces of bytes, not of {type(piece).__name__}")
            audio = rest + piece if rest else piece
            whole = len(audio) // frame * frame
            rest = bytes(audio[whole:])
            for start in range(0, whole, step):
                await self._make_room()
                self._send_queue.take(bytes(audio[start : min(start + step, whole)]))
                await self._keep_pace(began)
            await self._tell_dropped()
        for warned in self._source.warnings:
            await self._emit(warned)
        if rest:
            message = "the audio ends within a sample, which was left out"
            await self._emit(Warned("partial_sample", message, {"bytes": str(len(rest))}))
        self._send_queue.finish()

    async def _make_room(self) -> None:
        if self._source.is_live:
            await self._press()
        else:
            await self._send_queue.until(self._has_room)

    def _has_room(self) -> bool:
        audio = self._send_queue.audio
        return audio.size < self._max_kept_bytes and audio.end - self._send_queue.position < _READ_AHEAD_BYTES

    async def _press(self) -> None:
        audio = self._send_queue.audio
        if audio.size < self._max_kept_bytes:
            return
        self._send_queue.release(self._spare())
        if audio.size >= self._max_kept_bytes:
            raise AudioOverflow("audio came faster than the service took it, until the memory for it was full")
        if not self._has_warned:
            self._has_warned = True
            message = "audio was let go that the service has and has not stored yet"
            await self._emit(Warned("unprotected", message))

    async def _keep_pace(self, began: float) -> None:
        if self._pace is None:
            return
        due = began + self._send_queue.format.seconds(self._send_queue.audio.end) / self._pace
        await asyncio.sleep(due - asyncio.get_running_loop().time())

    async def _tell_dropped(self) -> None:
        if self._source.recording is None:
            return
        if lost := self._source.recording.dropped_seconds():
            message = "audio was not taken in time and is missing; silence stands in its place"
            await self._emit(Warned("audio_dropped", message, {"seconds": f"{lost:.3f}"}))
