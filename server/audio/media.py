"""Recognises the format of an uploaded file by its first bytes, and by nothing else. Pure.

The name of a file and the type that its sender declares are not evidence. Formats that refer to other files or hosts
(playlists, concatenation scripts, session descriptions), images and subtitles are not recognised, and so are refused.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from server.audio.container import detect_container, mpeg_frame_bytes

SNIFF_BYTES: Final = 16_384
"""How many of the first bytes `sniff` needs at most; it may be called with fewer, and may then recognise less."""

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aac": "audio/aac",
        "aiff": "audio/aiff",
        "amr": "audio/amr",
        "caf": "audio/x-caf",
        "flac": "audio/flac",
        "mp3": "audio/mpeg",
        "mp4": "audio/mp4",
        "ogg": "audio/ogg",
        "wav": "audio/wav",
        "webm": "audio/webm",
    }
)
"""The formats that `sniff` returns, with their media types."""

SUPPORTED_FORMATS: Final = "aac, aiff, amr, caf, flac, m4a, mkv, mov, mp3, mp4, ogg, opus, wav, webm"
"""The supported formats by the usual suffixes of their files, for messages to users."""

_IMAGE_BRANDS: Final = frozenset(
    {b"avif", b"avis", b"crx ", b"heic", b"heim", b"heis", b"heix", b"hevc", b"mif1", b"msf1"}
)
_OLD_MOVIE_BOXES: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})
"""What a QuickTime file from before `ftyp` may begin with."""
_MAX_MPEG_OFFSET: Final = 8_192
_MPEG_FRAMES: Final = 4
"""Frames in a row that are taken as MPEG audio where it is not at the beginning; noise does not match this often."""
_ID3_HEADER_BYTES: Final = 10


def sniff(head: bytes) -> str | None:
    """The format of a file that begins with `head`: a key of `MEDIA_TYPES`, or None if it is not supported.

    A file that begins with an ID3 tag is called `mp3`, although FLAC and AAC may follow one; see `id3_bytes`.
    """
    name = detect_container(head)
    if name == "mp4" and head[8:12] in _IMAGE_BRANDS:
        return None
    if name is not None:
        return name if name in MEDIA_TYPES else None
    if _is_old_movie(head):
        return "mp4"
    return "mp3" if _has_mpeg_frames(head) else None


def id3_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that `head` begins with, its header included; 0 if it begins with none.

    Args:
        head: the first ten bytes or more.
    """
    if len(head) < _ID3_HEADER_BYTES or head[:3] != b"ID3" or any(byte > 0x7F for byte in head[6:10]):
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    has_footer = head[5] & 0x10
    return _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if has_footer else 0)


def _is_old_movie(head: bytes) -> bool:
    size = int.from_bytes(head[:4], "big")
    return len(head) >= 16 and head[4:8] in _OLD_MOVIE_BOXES and (size >= 8 or size in (0, 1))


def _has_mpeg_frames(head: bytes) -> bool:
    """Whether several MPEG frames in a row begin in the first bytes, as in a file that was cut out of a stream."""
    at = head.find(b"\xff")
    while 0 <= at <= _MAX_MPEG_OFFSET:
        if _frames_at(head, at) >= _MPEG_FRAMES:
            return True
        at = head.find(b"\xff", at + 1)
    return False


def _frames_at(head: bytes, at: int) -> int:
    frames, first = 0, head[at : at + 3]
    while frames < _MPEG_FRAMES:
        start = head[at : at + 4]
        length = mpeg_frame_bytes(start)
        if length is None or start[:2] != first[:2] or (start[2] ^ first[2]) & 0x0C:
            break
        frames, at = frames + 1, at + length
    return frames
