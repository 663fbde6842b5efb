"""A session's audio into a file, over several attempts and several runs of the command."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dalston.calls import Calls, retry_pause
from dalston.cli.exits import CommandError, ExitCode
from dalston.errors import DalstonError, ServerError, Unavailable
from dalston.v1 import session_pb2 as pb

_SILENCE_SECONDS = 30.0

Progress = Callable[[int, int], None]


class Download:
    """One file. What is here of it lies beside the target, under a name that says which file it is of and how long
    that is, until it is whole.

    Args:
        progress: is told the bytes that are here, and the bytes of the whole file.
    """

    def __init__(self, session_id: str, target: Path, *, linked: bool, progress: Progress) -> None:
        self._request = pb.GetAudioRequest(session_id=session_id, linked=linked)
        self._target = target
        self._prefix = f".{target.name}.{session_id}.{'linked' if linked else 'alone'}."
        self._progress = progress

    async def run(self, calls: Calls) -> int:
        """Gives the size of the file in bytes.

        Raises:
            DalstonError: it did not get further for the timeout of `calls`. What is here is kept.
            CommandError: another process fetches the same file.
            OSError: it cannot be written.
        """
        loop = asyncio.get_running_loop()
        attempt, deadline = 0, loop.time() + calls.timeout
        while True:
            before = self._position()
            try:
                return await self._attempt(calls)
            except DalstonError as error:
                if self._position() > before:
                    attempt, deadline = 0, loop.time() + calls.timeout
                attempt += 1
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    def _parts(self) -> list[Path]:
        return sorted(self._target.parent.glob(f"{glob.escape(self._prefix)}*.part"))

    def _position(self) -> int:
        return sum(part.stat().st_size for part in self._parts()[:1])

    async def _attempt(self, calls: Calls) -> int:
        part = next(iter(self._parts()), None)
        if part is not None and part.stat().st_size >= _size_in(part):
            part.unlink()  # It has more than it should.
            part = None
        position = part.stat().st_size if part else 0
        wanted = [("range", f"bytes={position}-")] if position else []
        stream = calls.stream(calls.sessions.GetAudio, self._request, _SILENCE_SECONDS, *wanted)
        async with aclosing(stream) as answers:
            first, size = _range_of(await anext(answers))
            if part is not None and (first != position or _size_in(part) != size):
                # It is joined from other sessions than before: one was deleted.
                part.unlink()
                raise Unavailable("the recording has changed while it was fetched")
            part = part or self._target.with_name(f"{self._prefix}{size}.part")
            await self._write(answers, part, size)
        part.replace(self._target)
        return size

    async def _write(self, answers: AsyncIterator[Any], part: Path, size: int) -> None:
        with _alone(part) as file:
            position = file.seek(0, os.SEEK_END)
            self._progress(position, size)
            async for answer in answers:
                await asyncio.to_thread(file.write, answer.data)
                position += len(answer.data)
                self._progress(position, size)
            file.flush()
            os.fsync(file.fileno())
        if position < size:
            raise Unavailable(f"the service sent {position} of {size} bytes")
        if position > size:
            raise ServerError(f"the service sent {position} bytes and said it would be {size}")


def _size_in(part: Path) -> int:
    """The length of the whole file, as the name of its part has it."""
    digits = part.name.split(".")[-2]
    return int(digits) if digits.isdigit() else -1


def _range_of(headers: dict[str, str]) -> tuple[int, int]:
    """Where in the file the answer begins, and how long the whole file is."""
    unit, _, where = headers.get("content-range", "").partition(" ")
    span, _, whole = where.partition("/")
    first = span.partition("-")[0]
    if unit == "bytes" and first.isdigit() and whole.isdigit():
        return int(first), int(whole)
    length = headers.get("x-content-length", "")
    if not length.isdigit():
        raise ServerError("the service does not say how long the audio is")
    return 0, int(length)


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """A file to append to that no other process writes."""
    with part.open("ab") as file:
        with contextlib.suppress(ImportError):  # There is no such lock on Windows.
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError("another process fetches this file", ExitCode.NOT_NOW) from None
        yield file
