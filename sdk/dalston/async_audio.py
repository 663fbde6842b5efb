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
from dalston.errors import DalstonError, ServerError
from dalston.v1 import session_pb2 as pb

_SILENCE_SECONDS = 30.0


class AsyncAudio:
    """A WAV file on the service. A download that breaks goes on where it was."""

    def __init__(self, calls: Calls, session_id: str, *, linked: bool) -> None:
        self._calls = calls
        self._request = pb.GetAudioRequest(session_id=session_id, linked=linked)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The file in pieces of any size."""
        loop = asyncio.get_running_loop()
        position, attempt, deadline = 0, 0, loop.time() + self._calls.timeout
        while True:
            try:
                async with aclosing(self._from(position)) as pieces:
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
                        attempt, deadline = 0, loop.time() + self._calls.timeout
                return
            except DalstonError as error:
                attempt += 1
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    async def read(self) -> bytes:
        """The whole file."""
        whole = bytearray()
        async for piece in self:
            whole += piece
        return bytes(whole)

    async def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the file to `path`, which appears when it is whole; gives its size in bytes.

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
        skip = 0
        stream = self._calls.stream(self._calls.sessions.GetAudio, self._request, _SILENCE_SECONDS, *wanted)
        async with aclosing(stream) as answers:
            async for answer in answers:
                if isinstance(answer, dict):
                    skip = position - _first_byte(answer)
                    if skip < 0:
                        raise ServerError("the service sent another part of the audio than it was asked for")
                    continue
                piece = answer.data[skip:]
                skip -= len(answer.data) - len(piece)
                if piece:
                    yield piece


def _first_byte(headers: dict[str, Any]) -> int:
    """Where in the file an answer starts: 0 unless it says otherwise."""
    unit, _, where = str(headers.get("content-range", "")).partition(" ")
    first = where.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else 0
