"""The waveform of decoded audio."""

import asyncio
from typing import Final

from server.audio.waveform import WaveformBuilder
from worker.audio.uploaded_file import FORMAT, DecodedFile

_PIECE_FRAMES: Final = 1 << 19
"""Audio in memory: a mebibyte."""


async def waveform_of(file: DecodedFile) -> bytes:
    """The waveform of all of a decoded file.

    Raises:
        StorageUnavailable: the temporary file cannot be read.
    """
    builder = WaveformBuilder(FORMAT)
    for first in range(0, file.frames, _PIECE_FRAMES):
        data = await file.read(first, min(first + _PIECE_FRAMES, file.frames))
        await asyncio.to_thread(builder.push, data)
    return builder.finish()
