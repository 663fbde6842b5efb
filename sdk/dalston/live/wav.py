"""The header of a WAV file: pure but for the reading."""

from __future__ import annotations

import struct
from typing import Protocol

from dalston.errors import InvalidRequest
from dalston.live.format import AudioFormat

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_ENCODINGS = {(_PCM, 16): "pcm_s16le", (_FLOAT, 32): "pcm_f32le", (_ALAW, 8): "alaw", (_MULAW, 8): "mulaw"}
_MAX_SKIPPED_BYTES = 16 * 1024 * 1024
"""Cover art and the like before the audio."""
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
"""What a program writes that does not know the length yet, because it records or pipes."""


class Reader(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


def read_header(file: Reader) -> tuple[AudioFormat, int | None]:
    """Reads a file from behind its first four bytes, `RIFF`, up to the first byte of audio.

    Returns:
        What the audio is, and how many bytes it has; None if that is not known and it goes on to the end of the file.

    Raises:
        InvalidRequest: it is no WAV, or one of a kind that is not taken.
    """
    _, form = struct.unpack("<I4s", _exactly(file, 8))
    if form != b"WAVE":
        raise _invalid("the file begins like a WAV file and is none")
    audio: AudioFormat | None = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            if audio is None:
                raise _invalid("the WAV file does not say what its audio is")
            return audio, None if size in _UNKNOWN_LENGTHS else size
        if size > _MAX_SKIPPED_BYTES:
            raise _invalid("the WAV file has no audio where it should be")
        content = _exactly(file, size + size % 2)
        if name == b"fmt ":
            audio = _format_of(content)


def _format_of(content: bytes) -> AudioFormat:
    if len(content) < 16:
        raise _invalid("the WAV file does not say what its audio is")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
    if tag == _EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack_from("<H", content, 24)
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None:
        raise _invalid(
            f"a WAV file of format {tag} with {bits} bits is not taken; "
            "what is taken is 16-bit PCM, 32-bit float, A-law and µ-law"
        )
    try:
        return AudioFormat(encoding, rate, channels)
    except ValueError as error:
        raise _invalid(f"the WAV file is not taken: {error}") from None


def _exactly(file: Reader, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        piece = file.read(size - len(content))
        if not piece:
            raise _invalid("the WAV file ends before its audio")
        content += piece
    return bytes(content)


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, reason="INVALID_AUDIO")
