"""A session's stored audio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

from dalston.calls import Calls, retry_pause
from dalston.errors import DalstonError, ServerError, Unavailable
from dalston.v1 import session_pb2 as pb

_SILENCE_SECONDS = 30.0


class AsyncAudio:
    """A WAV file on the service, or what of it is behind its first bytes.

    A download that breaks goes on where it was.
    """

    def __init__(self, calls: Calls, session_id: str, *, linked: bool, start: int = 0) -> None:
        if start < 0:
            raise ValueError("start must not be less than 0")
        self._calls = calls
        self._request = pb.GetAudioRequest(session_id=session_id, linked=linked)
        self.start = start
        """Where in the file it begins, in bytes."""
        self.size: int | None = None
        """Bytes of the whole file, whatever `start` is; known as soon as its first piece has come."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The file from `start` on, in pieces of any size.

        Raises:
            InvalidRequest: it has no byte at `start`.
            ServerError: it is not the file any more that it was at first.
        """
        loop = asyncio.get_running_loop()
        position, attempt, deadline = self.start, 0, loop.time() + self._calls.timeout
        while True:
            try:
                async with aclosing(self._from(position)) as pieces:
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
                        attempt, deadline = 0, loop.time() + self._calls.timeout
                if self.size is not None and position < self.size:
                    raise Unavailable(f"the service sent {position} of {self.size} bytes")
                return
            except DalstonError as error:
                attempt += 1
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    async def read(self) -> bytes:
        """The file from `start` on."""
        whole = bytearray()
        async for piece in self:
            whole += piece
        return bytes(whole)

    async def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the file from `start` on to `path`, which appears when it is whole; gives its size in bytes.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        size = 0
        try:
            with partial.open("xb") as file:
                async for piece in self:
                    await asyncio.to_thread(file.write, piece)
                    size += len(piece)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def _from(self, position: int) -> AsyncGenerator[bytes, None]:
        wanted = [("range", f"bytes={position}-")] if position else []
        skip, size = 0, None
        stream = self._calls.stream(self._calls.sessions.GetAudio, self._request, _SILENCE_SECONDS, *wanted)
        async with aclosing(stream) as answers:
            async for answer in answers:
                if isinstance(answer, dict):
                    first, size = _range_of(answer)
                    skip = position - first
                    if skip < 0:
                        raise ServerError("the service sent another part of the audio than it was asked for")
                    continue
                self._take_size(size)
                piece = answer.data[skip:]
                skip -= len(answer.data) - len(piece)
                if piece:
                    yield piece

    def _take_size(self, size: int | None) -> None:
        if self.size is not None and size is not None and size != self.size:
            # Joined with others, of which one was deleted meanwhile.
            raise ServerError("the recording has changed while it was fetched")
        self.size = self.size if size is None else size


def _range_of(headers: dict[str, Any]) -> tuple[int, int | None]:
    """Where in the file an answer starts, 0 unless it says otherwise, and the size of the whole if it says that."""
    unit, _, where = str(headers.get("content-range", "")).partition(" ")
    span, _, whole = where.partition("/")
    first = span.partition("-")[0]
    if unit == "bytes" and first.isdigit():
        return int(first), int(whole) if whole.isdigit() else None
    length = str(headers.get("x-content-length", ""))
    return 0, int(length) if length.isdigit() else None
