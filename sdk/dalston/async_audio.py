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
    """A WAV file on the service, read from an offset.

    An interrupted download continues where it stopped.
    """

    def __init__(self, calls: Calls, session_id: str, *, linked: bool, start: int = 0) -> None:
        if start < 0:
            raise ValueError("start must not be less than 0")
        self._calls = calls
        self._request = pb.GetAudioRequest(session_id=session_id, linked=linked)
        self.start = start
        """Offset in the file at which reading begins, in bytes."""
        self.size: int | None = None
        """Size of the whole file in bytes, regardless of `start`; known once the first piece has arrived."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the file from `start` on, in pieces of any size.

        Raises:
            InvalidRequest: `start` is beyond the end of the file.
            ServerError: the file changed during the download.
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
        """Returns the file from `start` on."""
        whole = bytearray()
        async for piece in self:
            whole += piece
        return bytes(whole)

    async def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the file from `start` on to `path`, which appears once it is complete. Returns the bytes written.

        Raises:
            OSError: the file cannot be written.
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
        range_header = [("range", f"bytes={position}-")] if position else []
        skip, size = 0, None
        stream = self._calls.stream(self._calls.sessions.GetAudio, self._request, _SILENCE_SECONDS, *range_header)
        async with aclosing(stream) as answers:
            async for answer in answers:
                if isinstance(answer, dict):
                    first, size = _range_of(answer)
                    skip = position - first
                    if skip < 0:
                        raise ServerError("the service sent a different part of the audio than requested")
                    continue
                self._take_size(size)
                piece = answer.data[skip:]
                skip -= len(answer.data) - len(piece)
                if piece:
                    yield piece

    def _take_size(self, size: int | None) -> None:
        if self.size is not None and size is not None and size != self.size:
            # A joined recording shrinks when one of its sessions is deleted.
            raise ServerError("the recording changed during the download")
        self.size = self.size if size is None else size


def _range_of(headers: dict[str, Any]) -> tuple[int, int | None]:
    """The offset at which a response starts, 0 by default, and the size of the whole file if the headers state it."""
    unit, _, where = str(headers.get("content-range", "")).partition(" ")
    span, _, whole = where.partition("/")
    first = span.partition("-")[0]
    if unit == "bytes" and first.isdigit():
        return int(first), int(whole) if whole.isdigit() else None
    length = str(headers.get("x-content-length", ""))
    return 0, int(length) if length.isdigit() else None
