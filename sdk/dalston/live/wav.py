"""Reads the headers of WAV files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from dalston.errors import InvalidRequest
from dalston.live.samples import Kind, Samples

_KINDS: dict[int, Kind] = {1: "pcm", 3: "float", 6: "alaw", 7: "mulaw"}
_EXTENSIBLE = 0xFFFE
_LONG = 0xFFFFFFFF
"""Placeholder for a length that the chunk `ds64` contains, or that is unknown."""
_MAX_SKIPPED_BYTES = 16 * 1024 * 1024
"""Largest chunk before the audio, such as cover art."""
_OTHER_CHUNKS = (b"LIST", b"bext", b"cue ", b"fact", b"id3 ", b"ID3 ", b"iXML", b"JUNK", b"PEAK", b"_PMX", b"smpl")

STARTS = (b"RIFF", b"RF64", b"BW64")
"""The first four bytes of a WAV file; RF64 and BW64 files may exceed 4 GiB."""


class Reader(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class WavHeader:
    """The header of a WAV file."""

    samples: Samples
    size: int | None
    """Bytes of audio; None if the header does not state it and the audio extends to the end of the file."""
    lookahead: bytes = b""
    """The first bytes of the audio if they were read to recognise them as audio."""


def read_header(file: Reader, start: bytes = b"RIFF") -> WavHeader:
    """Reads the header after the first four bytes, `start`, up to the first byte of audio.

    Raises:
        InvalidRequest: it is not a WAV file, or its format is not supported; `reason` is `INVALID_AUDIO`.
    """
    length, form = struct.unpack("<I4s", _exactly(file, 8))
    if form != b"WAVE":
        raise invalid("the file begins like a WAV file but is not one")
    end = None if _is_unknown(length) else length + 8  # The end of the file according to its header.
    position, has_data = 12, False
    samples: Samples | None = None
    long_size: int | None = None
    lookahead = b""
    while True:
        head = lookahead + read_at_most(file, 8 - len(lookahead))
        if len(head) < 8 and has_data and samples is not None:
            return WavHeader(samples, 0)  # Only other chunks follow the empty audio.
        if len(head) < 8:
            raise invalid("the WAV file ends before its audio")
        name, size = struct.unpack("<4sI", head)
        position, lookahead = position + 8, b""
        if name == b"data":
            if samples is None:
                raise invalid("the WAV file does not state the format of its audio")
            if size == _LONG and start != b"RIFF" and long_size is not None:
                size = long_size
            elif _is_placeholder(size):
                return WavHeader(samples, None)
            if size:
                return WavHeader(samples, size)
            lookahead, has_data = read_at_most(file, 8), True
            if lookahead and not _is_chunk(lookahead, position, end):
                return WavHeader(samples, None, lookahead)  # The header was written before the length was known.
            continue
        if size > _MAX_SKIPPED_BYTES:
            raise invalid("the WAV file has no audio at the expected position")
        content = read_at_most(file, size + size % 2) if has_data else _exactly(file, size + size % 2)
        position += len(content)
        if name == b"fmt ":
            samples = _samples_of(content)
        elif name == b"ds64" and len(content) >= 16:
            riff_size, long_size = struct.unpack_from("<QQ", content)
            end = riff_size + 8 if riff_size else None
            if long_size >= 1 << 63:
                long_size = None


def invalid(message: str) -> InvalidRequest:
    """The error for audio that cannot be read."""
    return InvalidRequest(message, reason="INVALID_AUDIO")


def _is_placeholder(size: int) -> bool:
    """Whether a streaming program wrote this in place of an unknown length: the largest value of 31 or 32 bits, or
    slightly less to leave room for the header."""
    return size >= 0xFFFFF000 or 0x7FFFF000 <= size <= 0x80000000


def _is_unknown(length: int) -> bool:
    return length == 0 or _is_placeholder(length)


def _is_chunk(head: bytes, position: int, end: int | None) -> bool:
    """Whether another chunk, and not audio, follows a `data` chunk of length 0.

    Args:
        end: the end of the file according to its header.
    """
    if len(head) < 8:
        return False
    name, size = struct.unpack("<4sI", head)
    if name in _OTHER_CHUNKS or name == b"data":
        return True
    return end is not None and name.isascii() and name.decode().isprintable() and position + 8 + size <= end


def _samples_of(content: bytes) -> Samples:
    if len(content) < 16:
        raise invalid("the WAV file does not state the format of its audio")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
    if tag == _EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack_from("<H", content, 24)
    kind = _KINDS.get(tag)
    if kind is None:
        raise invalid(f"the WAV file contains compressed audio (format tag {tag})")
    try:
        return Samples(kind, (bits + 7) // 8 * 8, rate, channels)
    except ValueError as error:
        raise invalid(f"the WAV file cannot be read: {error}") from None


def _exactly(file: Reader, size: int) -> bytes:
    content = read_at_most(file, size)
    if len(content) < size:
        raise invalid("the WAV file ends before its audio")
    return content


def read_at_most(file: Reader, size: int) -> bytes:
    """Reads `size` bytes, or fewer if the file ends first."""
    content = bytearray()
    while len(content) < size:
        piece = file.read(size - len(content))
        if not piece:
            break
        content += piece
    return bytes(content)
