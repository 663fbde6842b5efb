"""The audio of an uploaded file: decoded once, into a temporary file that is read by position."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from persistence.errors import DiskUnavailable
from persistence.worker_service import SourceFile
from server.audio.decoder import MODEL_RATE
from server.audio.format import AudioFormat, Encoding
from worker.media.decode import Limits, decode
from worker.media.errors import NoDiskSpace
from worker.media.outcome import SAMPLE_BYTES
from worker.media.scratch import Scratch

FORMAT: Final = AudioFormat(Encoding.PCM_S16LE, MODEL_RATE, 1)
"""Of decoded audio."""


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """Decoded audio on the local disk."""

    frames: int
    _handle: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / MODEL_RATE

    async def read(self, first: int, last: int) -> bytes:
        """The audio from sample frame `first` to the one before `last`, in `FORMAT`."""
        size, position = (last - first) * SAMPLE_BYTES, first * SAMPLE_BYTES
        data = await asyncio.to_thread(os.pread, self._handle, size, position)
        if len(data) != size:
            raise DiskUnavailable("a temporary file is shorter than it was written")
        return data


@asynccontextmanager
async def decoded_file(source: SourceFile, scratch: Scratch, limits: Limits) -> AsyncIterator[DecodedFile]:
    """The decoded audio of a file, which is removed at the end of the block.

    Raises:
        UndecodableMedia, MediaTooLong, MediaTooLarge: no attempt can decode the file.
        DecodingFailed: a later attempt may.
        StorageUnavailable: S3 is unavailable, or the disk has no room for the audio.
    """
    destination = scratch.folder / uuid.uuid4().hex
    try:
        decoded = await decode(source.chunks(), destination, scratch, limits)
    except NoDiskSpace as error:
        raise DiskUnavailable(str(error)) from error
    try:
        handle = os.open(destination, os.O_RDONLY | os.O_CLOEXEC)
        # The open file stays; nothing of it is left when the process is killed.
        destination.unlink()
        try:
            yield DecodedFile(decoded.byte_count // SAMPLE_BYTES, handle)
        finally:
            os.close(handle)
    finally:
        scratch.release(decoded.byte_count)
