"""Reads the audio source into the send queue, with bounded memory and at the requested pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dalston.errors import AudioOverflow
from dalston.events import Warned
from dalston.live.audio_stream import AudioStream
from dalston.live.send_queue import SendQueue

_READ_AHEAD_BYTES = 256 * 1024
"""Unsent audio that is read ahead from a source that can wait."""
_STEP_SECONDS = 0.1
"""Length of the pieces of a paced source."""
_STEP_BYTES = 64 * 1024

Emit = Callable[[Warned], Awaitable[None]]


class SourceReader:
    """Moves the audio of one transcription from its source to the send queue.

    Args:
        received_bytes: returns the position up to which the service has received the audio. Used for live sources.
    """

    def __init__(
        self,
        source: AudioStream,
        send_queue: SendQueue,
        pace: float | None,
        max_kept_bytes: int,
        received_bytes: Callable[[], int],
        emit: Emit,
    ) -> None:
        self._source = source
        self._send_queue = send_queue
        self._pace = pace
        self._max_kept_bytes = max_kept_bytes
        self._received_bytes = received_bytes
        self._emit = emit
        self._has_warned = False

    async def run(self) -> None:
        """Runs until the source ends.

        Raises:
            TypeError: a piece does not consist of bytes.
            AudioOverflow: a live source outran the service until the buffer was full.
            Exception: any error of the source itself.
        """
        frame, began = self._send_queue.format.frame_bytes, asyncio.get_running_loop().time()
        step = self._send_queue.format.size(_STEP_SECONDS) if self._pace else _STEP_BYTES // frame * frame
        rest = b""
        async for piece in self._source.pieces:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(f"an audio source must yield bytes, not {type(piece).__name__}")
            audio = rest + piece if rest else piece
            whole = len(audio) // frame * frame
            rest = bytes(audio[whole:])
            for start in range(0, whole, step):
                await self._make_room()
                self._send_queue.append_audio(bytes(audio[start : min(start + step, whole)]))
                await self._keep_pace(began)
            await self._report_dropped()
        for warned in self._source.warnings:
            await self._emit(warned)
        if rest:
            message = "the audio ends within a sample, which was omitted"
            await self._emit(Warned("partial_sample", message, {"bytes": str(len(rest))}))
        self._send_queue.finish()

    async def _make_room(self) -> None:
        if self._source.is_live:
            await self._make_room_for_live()
        else:
            await self._send_queue.wait_until(self._has_room)

    def _has_room(self) -> bool:
        audio = self._send_queue.audio
        return audio.size < self._max_kept_bytes and audio.end - self._send_queue.position < _READ_AHEAD_BYTES

    async def _make_room_for_live(self) -> None:
        audio = self._send_queue.audio
        if audio.size < self._max_kept_bytes:
            return
        self._send_queue.discard_before(self._received_bytes())
        if audio.size >= self._max_kept_bytes:
            raise AudioOverflow("audio arrived faster than the service took it until the buffer was full")
        if not self._has_warned:
            self._has_warned = True
            message = "the buffer is full: audio that the service has received and not stored yet was discarded"
            await self._emit(Warned("unprotected", message))

    async def _keep_pace(self, began: float) -> None:
        if self._pace is None:
            return
        due = began + self._send_queue.format.seconds(self._send_queue.audio.end) / self._pace
        await asyncio.sleep(due - asyncio.get_running_loop().time())

    async def _report_dropped(self) -> None:
        if self._source.recording is None:
            return
        if lost := self._source.recording.dropped_seconds():
            message = "audio was not read in time and is missing; silence replaces it"
            await self._emit(Warned("audio_dropped", message, {"seconds": f"{lost:.3f}"}))
