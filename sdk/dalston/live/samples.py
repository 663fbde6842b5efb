"""Converts the samples of files to samples that the service supports. Pure, without dependencies."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Any, Literal

from dalston.live.audio_format import AudioFormat

Kind = Literal["pcm", "float", "alaw", "mulaw"]

_SERVICE_ENCODINGS = {("pcm", 16): "pcm_s16le", ("float", 32): "pcm_f32le", ("alaw", 8): "alaw", ("mulaw", 8): "mulaw"}
_READABLE = {*_SERVICE_ENCODINGS, ("pcm", 8), ("pcm", 24), ("pcm", 32), ("float", 64)}
_LEAST_RATE, _MOST_RATE = 8_000, 48_000
_MOST_CHANNELS = 64
_CROSSINGS = 6
"""Zero crossings of the filter on each side. It passes frequencies below 0.7 of the new band and attenuates those above
1.3 of it below audibility; the service uses frequencies up to 8 kHz."""
_SIGN = bytes(value ^ 0x80 for value in range(256))

# math.sumprod of Python 3.12 is several times faster.
_sumprod: Callable[[Sequence[float], Iterable[float]], float] = getattr(
    math, "sumprod", lambda one, other: sum(map(mul, one, other))
)


@dataclass(frozen=True, slots=True)
class Samples:
    """The sample format of a file: little-endian and interleaved; 8-bit PCM is unsigned.

    Raises:
        ValueError: the format is not supported.
    """

    kind: Kind
    bits: int
    """Bits that a sample occupies."""
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        if (self.kind, self.bits) not in _READABLE:
            raise ValueError(f"{self.bits}-bit {self.kind} samples are not supported")
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"{self.channels} channels are not supported")
        if self.sample_rate < _LEAST_RATE or (self._factor is None):
            raise ValueError(f"the sample rate {self.sample_rate} Hz is not supported")
        if not self.is_supported and self.kind in ("alaw", "mulaw"):
            raise ValueError(f"{self.channels} channels of {self.kind} at {self.sample_rate} Hz are not supported")

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample frame: one sample of every channel."""
        return self.bits // 8 * self.channels

    @property
    def is_supported(self) -> bool:
        """Whether the service supports the samples without conversion."""
        return (self.kind, self.bits) in _SERVICE_ENCODINGS and self.channels <= 2 and self.sample_rate <= _MOST_RATE

    @property
    def format(self) -> AudioFormat:
        """The format in which the samples are sent."""
        encoding = _SERVICE_ENCODINGS.get((self.kind, self.bits)) or (
            "pcm_f32le" if self.kind == "float" else "pcm_s16le"
        )
        return AudioFormat(
            encoding, self.sample_rate // (self._factor or 1), self.channels if self.channels <= 2 else 1
        )

    def seconds(self, size: int) -> float:
        """The duration of `size` bytes in seconds."""
        return size / self.frame_bytes / self.sample_rate

    @property
    def _factor(self) -> int | None:
        """The divisor of the sample rate; None if no whole number yields a supported rate."""
        least = -(-self.sample_rate // _MOST_RATE)
        most = self.sample_rate // _LEAST_RATE
        return next((each for each in range(least, most + 1) if self.sample_rate % each == 0), None)

    def converted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Converts audio in pieces of any size to a format that the service supports.

        Supported samples are passed on unchanged. Integers become 16-bit, 64-bit floats become 32-bit, more than two
        channels are mixed to one, and a rate above 48 kHz is divided by a whole number.
        """
        if self.is_supported:
            yield from pieces
            return
        converter, rest = _Converter(self), b""
        for piece in pieces:
            audio = rest + piece
            whole = len(audio) // self.frame_bytes * self.frame_bytes
            rest = audio[whole:]
            if converted := converter.push(audio[:whole]):
                yield converted
        if last := converter.flush():
            yield last


class _Converter:
    def __init__(self, samples: Samples) -> None:
        self._code = "f" if samples.kind == "float" else "h"
        self._decode = partial(_DECODERS[samples.kind, samples.bits], self._code)
        self._channels = samples.channels
        factor = samples.sample_rate // samples.format.sample_rate
        self._decimators = [_Decimator(factor) for _ in range(samples.format.channels)] if factor > 1 else []

    def push(self, audio: bytes) -> bytes:
        planes = self._planes(self._decode(audio))
        if self._decimators:
            planes = [each.push(plane) for each, plane in zip(self._decimators, planes, strict=True)]
        return self._join(planes)

    def flush(self) -> bytes:
        return self._join([each.flush() for each in self._decimators])

    def _planes(self, samples: array[Any]) -> list[Sequence[float]]:
        count = self._channels
        if count <= 2:
            return [samples[channel::count] for channel in range(count)] if self._decimators else [samples]
        frames = zip(*(samples[channel::count] for channel in range(count)), strict=True)
        if self._code == "h":
            return [[sum(frame) // count for frame in frames]]
        return [[sum(frame) / count for frame in frames]]

    def _join(self, planes: list[Sequence[float]]) -> bytes:
        if not planes or not len(planes[0]):
            return b""
        joined = array(self._code, bytes(len(planes) * len(planes[0]) * array(self._code).itemsize))
        for channel, plane in enumerate(planes):
            joined[channel :: len(planes)] = plane if isinstance(plane, array) else self._rounded(plane)
        if sys.byteorder == "big":
            joined.byteswap()
        return joined.tobytes()

    def _rounded(self, plane: Sequence[float]) -> array[Any]:
        if self._code == "f":
            return array("f", plane)
        return array("h", [max(-32768, min(32767, round(value))) for value in plane])


class _Decimator:
    """Divides the rate of one channel by a whole number: a low-pass filter evaluated at every n-th sample only."""

    def __init__(self, factor: int) -> None:
        half_width = _CROSSINGS * factor
        taps = [_windowed_sinc(offset / factor, half_width / factor) for offset in range(-half_width, half_width + 1)]
        self._offsets = [offset for offset, tap in enumerate(taps) if tap]
        whole = sum(taps)
        self._taps = [taps[offset] / whole for offset in self._offsets]
        self._factor = factor
        self._length = len(taps)
        self._half_width = half_width
        self._kept: list[float] = [0.0] * half_width

    def push(self, plane: Sequence[float]) -> list[float]:
        kept = [*self._kept, *plane]
        count = max(0, (len(kept) - self._length) // self._factor + 1)
        span = (count - 1) * self._factor + 1
        columns = [kept[offset : offset + span : self._factor] for offset in self._offsets] if count else []
        self._kept = kept[count * self._factor :]
        taps = self._taps
        return [_sumprod(taps, frame) for frame in zip(*columns, strict=True)]

    def flush(self) -> list[float]:
        return self.push([0.0] * self._half_width)


def _windowed_sinc(position: float, half_width: float) -> float:
    """The ideal low-pass filter with a Hann window; exactly 0 at its zero crossings."""
    if position == 0:
        return 1.0
    if position == int(position):
        return 0.0
    return math.sin(math.pi * position) / (math.pi * position) * (0.5 + 0.5 * math.cos(math.pi * position / half_width))


def _little_endian(code: str, audio: bytes | bytearray) -> array[Any]:
    samples = array(code, audio)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _upper(width: int, code: str, audio: bytes) -> array[Any]:
    """The upper 16 bits of integers of `width` bytes."""
    upper = bytearray(len(audio) // width * 2)
    upper[0::2], upper[1::2] = audio[width - 2 :: width], audio[width - 1 :: width]
    return _little_endian(code, upper)


def _unsigned(code: str, audio: bytes) -> array[Any]:
    upper = bytearray(2 * len(audio))
    upper[1::2] = audio.translate(_SIGN)
    return _little_endian(code, upper)


def _double(code: str, audio: bytes) -> array[Any]:
    return array(code, _little_endian("d", audio))


_DECODERS: dict[tuple[str, int], Callable[[str, bytes], array[Any]]] = {
    ("pcm", 8): _unsigned,
    ("pcm", 16): _little_endian,
    ("pcm", 24): partial(_upper, 3),
    ("pcm", 32): partial(_upper, 4),
    ("float", 32): _little_endian,
    ("float", 64): _double,
}
