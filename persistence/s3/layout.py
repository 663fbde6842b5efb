"""Where the parts of a stored WAV file begin and end in the session's audio. Pure.

All parts but the last have PART_BYTES. The header is in part 1, which holds less audio by the header's length.
Positions are bytes of audio, the header not counted.
"""

from typing import Final

from persistence.wav import WavFormat

PART_BYTES: Final = 5 * 1024 * 1024
"""The minimum size in S3 of every part but the last, and the size of all parts here."""


def first_byte(wav: WavFormat, number: int) -> int:
    """Where the audio of a part begins; 1 is the first part."""
    return max(0, (number - 1) * PART_BYTES - wav.header_bytes)


def end_byte(wav: WavFormat, number: int) -> int:
    """Where the audio of a full part ends."""
    return number * PART_BYTES - wav.header_bytes


def part_of(wav: WavFormat, position: int) -> int:
    """The part that holds the byte of audio at `position`."""
    return (position + wav.header_bytes) // PART_BYTES + 1


def part_count(wav: WavFormat, audio_bytes: int) -> int:
    """The number of parts of a file with `audio_bytes` of audio; one without audio is a single part, the header."""
    return max(1, -(-wav.file_bytes(audio_bytes) // PART_BYTES))


def audio_range(wav: WavFormat, number: int, audio_bytes: int) -> tuple[int, int]:
    """The range of audio in a part of a file with `audio_bytes` of audio: its first byte and the one after its last."""
    return first_byte(wav, number), min(end_byte(wav, number), audio_bytes)


def part(wav: WavFormat, number: int, audio_bytes: int, audio: bytes) -> bytes:
    """A part of a file with `audio_bytes` of audio, built from its audio."""
    before, after = header_and_padding(wav, number, audio_bytes)
    return b"".join((before, audio, after)) if before or after else audio


def header_and_padding(wav: WavFormat, number: int, audio_bytes: int) -> tuple[bytes, bytes]:
    """The bytes before and after the audio in a part of a file with `audio_bytes` of audio: header and padding."""
    header = wav.header(audio_bytes) if number == 1 else b""
    padding = wav.padding(audio_bytes) if number == part_count(wav, audio_bytes) else b""
    return header, padding


def split(wav: WavFormat, begin: int, end: int) -> list[tuple[int, int]]:
    """A range of audio divided at the boundaries of parts."""
    pieces = []
    while begin < end:
        cut = min(end, end_byte(wav, part_of(wav, begin)))
        pieces.append((begin, cut))
        begin = cut
    return pieces
