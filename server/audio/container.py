"""Detects audio files that are sent in place of raw samples, by their signatures. Pure.

A client that sends a file as it is, or the output of a browser's MediaRecorder, would have noise transcribed. Each
signature is long enough that samples do not match it by chance.
"""

from collections.abc import Callable
from typing import Final

_HEAD_BYTES: Final = 1_536
"""Two headers of MPEG audio are at most 1,441 bytes apart."""
_MPEG_HEADER_BYTES: Final = 4


class ContainerDetector:
    """Examines the beginning of one stream, however small its pieces are."""

    def __init__(self) -> None:
        self._head: bytearray | None = bytearray()

    def push(self, data: bytes) -> str | None:
        """Adds the next bytes. Returns the name of the format once, as soon as it is known."""
        if self._head is None:
            return None
        self._head += data[: _HEAD_BYTES - len(self._head)]
        found = detect_container(bytes(self._head))
        if found is not None or len(self._head) >= _HEAD_BYTES:
            self._head = None
        return found


def detect_container(head: bytes) -> str | None:
    """The format of a file that begins with `head`, or None if it begins no known file or is too short."""
    return next((name for name, matches in _SIGNATURES if matches(head)), None)


def _is_riff(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def _is_ebml(head: bytes) -> bool:
    return head.startswith(b"\x1a\x45\xdf\xa3") and any(kind in head[:64] for kind in (b"webm", b"matroska"))


def _is_mp4(head: bytes) -> bool:
    # The first box names the file type, and is short.
    return head[:3] == b"\0\0\0" and head[4:8] == b"ftyp"


def _is_id3(head: bytes) -> bool:
    if len(head) < 10 or head[:3] != b"ID3":
        return False
    return head[3] in (2, 3, 4) and head[4] == 0 and head[5] & 0x0F == 0 and all(byte < 0x80 for byte in head[6:10])


def _is_mpeg(head: bytes) -> bool:
    """MPEG audio without a tag: two MPEG frames, the second at the end of the first."""
    length = mpeg_frame_bytes(head)
    if length is None or len(head) < length + _MPEG_HEADER_BYTES:
        return False
    # Bit rate, padding and stereo mode may differ between frames.
    same = head[:2] == head[length : length + 2] and (head[2] ^ head[length + 2]) & 0x0C == 0
    return same and mpeg_frame_bytes(head[length:]) is not None


_LAYER_3_KBPS: Final = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_1_HERTZ: Final = (44_100, 48_000, 32_000)


def mpeg_frame_bytes(head: bytes) -> int | None:
    """Length of the frame of MPEG audio, layer III, that `head` begins with; None if there is none."""
    if len(head) < _MPEG_HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bit_rate, sample_rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bit_rate in (0, 15) or sample_rate == 3:
        return None
    kbps = _LAYER_3_KBPS[3 if version == 3 else 2][bit_rate - 1]
    hertz = _MPEG_1_HERTZ[sample_rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if version == 3 else 72) * kbps * 1000 // hertz + (head[2] >> 1 & 1)


def _is_adts(head: bytes) -> bool:
    """AAC: two ADTS frames in a row."""
    length = _adts_frame_bytes(head)
    if length is None or len(head) < length + 3:
        return False
    return head[:3] == head[length : length + 3]


def _adts_frame_bytes(head: bytes) -> int | None:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else None


_SIGNATURES: Final[tuple[tuple[str, Callable[[bytes], bool]], ...]] = (
    ("wav", _is_riff),
    ("ogg", lambda head: head.startswith(b"OggS\0\2")),
    ("flac", lambda head: head.startswith((b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"))),
    ("webm", _is_ebml),
    ("mp4", _is_mp4),
    ("mp3", lambda head: _is_id3(head) or _is_mpeg(head)),
    ("aac", _is_adts),
    ("aiff", lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")),
    ("caf", lambda head: head.startswith(b"caff\0\1\0\0")),
    ("asf", lambda head: head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    ("amr", lambda head: head.startswith(b"#!AMR")),
)
