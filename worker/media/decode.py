"""Decodes a media file to mono PCM at 16 kHz: the interface of this package.

A child process without rights does the work (`worker.media.child`); this process never parses the file. See
docs/adr/0104.
"""

import asyncio
import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.audio.decoder import MODEL_RATE
from worker.media.child import Job
from worker.media.errors import DecodingFailed, DecodingTimeout, MediaTooLarge, NoDiskSpace
from worker.media.outcome import NO_SPACE, SAMPLE_BYTES, Decoded, disk_error, outcome_of
from worker.media.process import Child, Exit
from worker.media.scratch import Scratch

_SECOND_BYTES: Final = MODEL_RATE * SAMPLE_BYTES
_WATCH_SECONDS: Final = 0.1
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may need."""

    max_seconds: float = 24 * 3600.0
    """Of audio."""
    max_source_bytes: int = 8 * 1024**3
    """Of the file."""
    cpu_seconds: float = 60.0
    """CPU time before anything has been decoded."""
    cpu_seconds_per_hour: float = 120.0
    """CPU time for each hour of audio that has been decoded."""
    memory_bytes: int = 1024**3
    """Address space."""
    timeout_seconds: float = 4 * 3600.0
    """Wall time, for a machine that is too busy."""

    def cpu_after(self, audio_seconds: float) -> int:
        """CPU seconds that are allowed once that much audio has been decoded."""
        return round(self.cpu_seconds + self.cpu_seconds_per_hour * audio_seconds / 3600) or 1


async def decode(
    source: Path | AsyncIterable[bytes], destination: Path, scratch: Scratch, limits: Limits | None = None
) -> Decoded:
    """Decodes the best audio stream of a file.

    A source of bytes is first written to a temporary file without a name, because some formats have their index at
    the end. The bytes of `destination` stay counted in `scratch`: call `scratch.release(decoded.byte_count)` when it
    is deleted. If decoding fails or is cancelled, the child is gone, and `destination` does not exist.

    Args:
        source: a regular file, which is only read, or its bytes in pieces of any size.
        destination: does not exist; in `scratch.folder`.

    Raises:
        UndecodableMedia: no attempt can decode it; the message is for the user.
        MediaTooLong, MediaTooLarge: it exceeds the limits.
        NoDiskSpace, DecodingTimeout, DecodingFailed: the failure is ours, and a later attempt may succeed.
        OSError: `source` cannot be read, or `destination` cannot be created.
    """
    limits = limits or Limits()
    async with _readable(source, scratch, limits) as file:
        try:
            output = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise disk_error(error) from error
            raise
        written = _Written(output, scratch)
        try:
            result = await _run(file, written, limits)
            decoded = outcome_of(result, destination, written.size, limits.max_seconds)
        except BaseException:
            _unlink(destination)
            written.discard()
            raise
        finally:
            os.close(output)
    return decoded


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Written:
    """How much the child has written, and the accounting of it."""

    def __init__(self, output: int, scratch: Scratch) -> None:
        self.output = output
        self.size = 0
        self.scratch = scratch

    def update(self) -> None:
        """Takes the size of the file. Raises NoDiskSpace."""
        size = os.fstat(self.output).st_size
        self.scratch.count(size - self.size)
        self.size = size
        self.scratch.check()

    def discard(self) -> None:
        """The file is deleted."""
        self.scratch.release(self.size)
        self.size = 0


async def _run(source: int, written: _Written, limits: Limits) -> Exit:
    """Runs the child until it exits. Raises NoDiskSpace, DecodingTimeout."""
    available = written.scratch.available_bytes
    if not available:
        raise NoDiskSpace("there is not enough disk space for temporary files")
    job = Job(
        parent=os.getpid(),
        report=-1,
        max_seconds=limits.max_seconds,
        memory_bytes=limits.memory_bytes,
        file_bytes=min(available, int(limits.max_seconds * _SECOND_BYTES) + _PIECE_BYTES),
        cpu_seconds=limits.cpu_after(0),
        max_cpu_seconds=limits.cpu_after(limits.max_seconds) + 1,
    )
    try:
        child = Child(job, source, written.output)
    except OSError as error:
        raise DecodingFailed(f"the decoder cannot be started: {error.strerror}") from error
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.timeout_seconds
        while not await child.wait(_WATCH_SECONDS):
            written.update()
            child.allow_cpu(limits.cpu_after(written.size / _SECOND_BYTES))
            if loop.time() > deadline:
                raise DecodingTimeout("decoding took longer than its deadline")
        written.update()
        return child.result()
    finally:
        await child.end()


@contextlib.asynccontextmanager
async def _readable(source: Path | AsyncIterable[bytes], scratch: Scratch, limits: Limits) -> AsyncIterator[int]:
    """The source as an open regular file."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, Path):
            # Without waiting for the writer of a pipe.
            file = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            stack.callback(os.close, file)
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EINVAL, "the source is not a regular file")
            if state.st_size > limits.max_source_bytes:
                raise MediaTooLarge(limits.max_source_bytes)
        else:
            temporary = stack.enter_context(tempfile.TemporaryFile(dir=scratch.folder, buffering=0))
            file = temporary.fileno()
            stack.callback(lambda: scratch.release(os.fstat(file).st_size))
            await _copy(source, file, scratch, limits)
            os.lseek(file, 0, os.SEEK_SET)
        yield file


async def _copy(source: AsyncIterable[bytes], file: int, scratch: Scratch, limits: Limits) -> None:
    """Writes the chunks in the thread of the event loop, as the spool does: a write to the page cache is short."""
    size = 0
    async for chunk in source:
        size += len(chunk)
        if size > limits.max_source_bytes:
            raise MediaTooLarge(limits.max_source_bytes)
        rest = memoryview(chunk)
        while rest:
            piece = rest[:_PIECE_BYTES]
            scratch.reserve(len(piece))
            try:
                count = os.write(file, piece)
            except OSError as error:
                scratch.release(len(piece))
                raise disk_error(error) from error
            scratch.release(len(piece) - count)
            rest = rest[count:]
            await asyncio.sleep(0)
