"""The header of a WAV file in the encoding of the received audio.

Microsoft's "New Multimedia Data Types and Data Techniques" (1994) and `mmreg.h` define the format codes; a format other
than PCM has an extension size and a `fact` chunk. Above 4 GiB the file is an RF64 (EBU Tech 3306), whose sizes are in a
`ds64` chunk. A `JUNK` chunk reserves its place in smaller files, so that the header has the same length for any amount
of audio, and the end of an upload's first part is known before that amount.
"""

import struct
from dataclasses import dataclass
from functools import cache
from typing import Final

HEADER_UNIT: Final = 8
"""Header lengths are a multiple of the largest sample frame, so that parts of 5 MiB end at a sample frame."""
_DS64 = struct.Struct("<4sIQQQI")
_MAX_32 = 0xFFFFFFFF
_MOST_RIFF_BYTES: Final = _MAX_32
"""The maximum length in a RIFF header; a longer file is an RF64."""


@dataclass(frozen=True, slots=True)
class _Codec:
    format_tag: int
    sample_bytes: int
    silence: bytes = b"\0"


_CODECS: Final = {
    "pcm_s16le": _Codec(0x0001, 2),
    "pcm_f32le": _Codec(0x0003, 4),
    "alaw": _Codec(0x0006, 1, b"\xd5"),
    "mulaw": _Codec(0x0007, 1, b"\xff"),
}
_PCM: Final = 0x0001


@dataclass(frozen=True, slots=True)
class WavFormat:
    """The audio format of a WAV file.

    Raises:
        ValueError: WAV has no code for the encoding, or a number is out of range.
    """

    encoding: str
    """`pcm_s16le`, `pcm_f32le`, `mulaw` or `alaw`."""
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        if self.encoding not in _CODECS:
            raise ValueError(f"no WAV format for encoding {self.encoding!r}")
        if not 1 <= self.channels <= 2 or not 1 <= self.sample_rate <= 384_000:
            raise ValueError("channels must be 1 or 2 and the sample rate 1 to 384000")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return _CODECS[self.encoding].sample_bytes * self.channels

    @property
    def silence(self) -> bytes:
        """The byte of silence."""
        return _CODECS[self.encoding].silence

    @property
    def header_bytes(self) -> int:
        """Length of the header, the same for any amount of audio."""
        return _header_bytes(self.encoding)

    def seconds(self, data_bytes: int) -> float:
        """The length of `data_bytes` of audio."""
        return data_bytes / (self.frame_bytes * self.sample_rate)

    def bytes_of(self, seconds: float) -> int:
        """The bytes of `seconds` of audio, rounded to the nearest whole sample frame."""
        return round(seconds * self.sample_rate) * self.frame_bytes

    def header(self, data_bytes: int) -> bytes:
        """Everything before the first sample of a file with `data_bytes` of audio, whole sample frames."""
        body = self._format_chunk() + self._fact_chunk(data_bytes)
        body += _filler(12 + _DS64.size + len(body) + 8)
        # From the form type to the end of the file: "WAVE", ds64 or JUNK, the chunks, the data chunk.
        riff_bytes = 4 + _DS64.size + len(body) + 8 + data_bytes + len(self.padding(data_bytes))
        if riff_bytes <= _MOST_RIFF_BYTES:
            reserve = struct.pack("<4sI28x", b"JUNK", _DS64.size - 8)
            riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
            return riff + reserve + body + struct.pack("<4sI", b"data", data_bytes)
        frames = data_bytes // self.frame_bytes
        sizes = _DS64.pack(b"ds64", _DS64.size - 8, riff_bytes, data_bytes, frames, 0)
        riff = struct.pack("<4sI4s", b"RF64", _MAX_32, b"WAVE")
        return riff + sizes + body + struct.pack("<4sI", b"data", _MAX_32)

    def padding(self, data_bytes: int) -> bytes:
        """The padding after the audio: RIFF chunks have an even length."""
        return bytes(data_bytes % 2)

    def file_bytes(self, data_bytes: int) -> int:
        """Length of the whole file."""
        return self.header_bytes + data_bytes + len(self.padding(data_bytes))

    def _format_chunk(self) -> bytes:
        codec = _CODECS[self.encoding]
        fields = struct.pack(
            "<HHIIHH",
            codec.format_tag,
            self.channels,
            self.sample_rate,
            self.sample_rate * self.frame_bytes,
            self.frame_bytes,
            codec.sample_bytes * 8,
        )
        extension = b"" if codec.format_tag == _PCM else struct.pack("<H", 0)
        return struct.pack("<4sI", b"fmt ", len(fields + extension)) + fields + extension

    def _fact_chunk(self, data_bytes: int) -> bytes:
        if _CODECS[self.encoding].format_tag == _PCM:
            return b""
        return struct.pack("<4sII", b"fact", 4, min(data_bytes // self.frame_bytes, _MAX_32))


@cache  # called for every message of audio
def _header_bytes(encoding: str) -> int:
    return len(WavFormat(encoding, 16_000, 1).header(0))


def _filler(header_bytes: int) -> bytes:
    """A chunk, which readers skip, that fills a header of this length up to a multiple of HEADER_UNIT; may be empty."""
    missing = -header_bytes % HEADER_UNIT
    return struct.pack(f"<4sI{missing}x", b"JUNK", missing) if missing else b""


def data_bytes(header: bytes) -> int:
    """The bytes of audio in a file, from a header that `WavFormat.header` made.

    Raises:
        ValueError: it is not such a header.
    """
    riff, data = header[:4], header[-8:-4]
    if riff not in (b"RIFF", b"RF64") or data != b"data":
        raise ValueError("not the header of a recording")
    if riff == b"RF64":
        return int(_DS64.unpack_from(header, 12)[3])
    return int.from_bytes(header[-4:], "little")
