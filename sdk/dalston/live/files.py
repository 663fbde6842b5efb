"""Audio in files and pipes: raw, WAV, or a format that needs a decoder. The content determines which, not the name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from dalston.errors import InvalidRequest
from dalston.events import Warned
from dalston.live.audio_format import AudioFormat
from dalston.live.decoders import MissingDecoder, RewindableFile, decode, truncated
from dalston.live.wav import STARTS, Reader, WavHeader, invalid, read_at_most, read_header

_READ_BYTES = 32_768


@dataclass(frozen=True)
class FileAudio:
    """Audio in a format that the service supports, read on demand."""

    format: AudioFormat
    pieces: Iterator[bytes]
    seconds: float | None = None
    """Length in seconds if it is known before reading."""
    warnings: list[Warned] = field(default_factory=list)
    """Defects of the audio; complete when `pieces` are exhausted."""
    interrupt: Callable[[], None] | None = None
    """Interrupts a blocked step of `pieces`; called from another thread."""


def open_raw(file: BinaryIO, format_: AudioFormat) -> FileAudio:
    """Opens audio without a header; it extends to the end of the file."""
    try:
        seconds = format_.seconds(os.fstat(file.fileno()).st_size) or None
    except (AttributeError, OSError):
        seconds = None
    return FileAudio(format_, _read(file, None, []), seconds)


def open_file(file: BinaryIO, path: Path | None) -> FileAudio:
    """Opens audio whose content determines its format.

    Args:
        path: the path of a regular file; None for a pipe.

    Raises:
        InvalidRequest: it is empty, or no installed decoder can read it; `reason` is `INVALID_AUDIO`.
    """
    source = RewindableFile(file, path)
    start = read_at_most(source, len(STARTS[0]))
    if not start:
        raise invalid("the audio is empty: it has no bytes")
    if start not in STARTS:
        return _decoded(source)
    try:
        header = read_header(source, start)
    except InvalidRequest as error:  # A decoder may support this kind of WAV file.
        try:
            return _decoded(source)
        except MissingDecoder:
            raise MissingDecoder(error.message) from None
        except InvalidRequest:
            raise error from None
    source.stop_buffering()
    return _wav(source, header)


def _wav(source: RewindableFile, header: WavHeader) -> FileAudio:
    samples, warnings = header.samples, list[Warned]()
    if header.size == 0:
        warnings.append(Warned("no_audio", "the WAV file contains no audio"))

    def read() -> Iterator[bytes]:
        missing: list[int] = []
        yield from chain((header.lookahead,) if header.lookahead else (), _read(source, header.size, missing))
        if missing:
            warnings.append(truncated(samples.seconds(missing[0])))

    seconds = None if header.size is None else samples.seconds(header.size)
    return FileAudio(samples.format, samples.converted(read()), seconds, warnings)


def _decoded(source: RewindableFile) -> FileAudio:
    decoded = decode(source)

    def read() -> Iterator[bytes]:
        try:
            yield from decoded.samples.converted(decoded.pieces)
        finally:
            decoded.close()

    return FileAudio(decoded.samples.format, read(), decoded.seconds, decoded.warnings, decoded.interrupt)


def _read(file: Reader, size: int | None, missing: list[int]) -> Iterator[bytes]:
    """Reads `size` bytes, or to the end of the file; appends the number of missing bytes to `missing`."""
    left = size
    while left is None or left > 0:
        piece = file.read(_READ_BYTES if left is None else min(_READ_BYTES, left))
        if not piece:
            if left:
                missing.append(left)
            return
        if left is not None:
            left -= len(piece)
        yield piece
