"""Samples as files have them, and how they become samples that the service takes. Pure, and plain Python."""

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

_TAKEN = {("pcm", 16): "pcm_s16le", ("float", 32): "pcm_f32le", ("alaw", 8): "alaw", ("mulaw", 8): "mulaw"}
_READ = {*_TAKEN, ("pcm", 8), ("pcm", 24), ("pcm", 32), ("float", 64)}
_LEAST_RATE, _MOST_RATE = 8_000, 48_000
_MOST_CHANNELS = 64
_CROSSINGS = 6
"""Zero crossings of the filter on each side. It passes what is below 0.7 of the new band and lets nothing audible of
what is above 1.3 of it through; the service hears up to 8 kHz."""
_SIGN = bytes(value ^ 0x80 for value in range(256))

# The one of Python 3.12 is several times as fast.
_sumprod: Callable[[Sequence[float], Iterable[float]], float] = getattr(
    math, "sumprod", lambda one, other: sum(map(mul, one, other))
)


@dataclass(frozen=True, slots=True)
class Samples:
    """What the bytes of audio in a file are: little-endian, interleaved, 8-bit PCM unsigned.

    Raises:
        ValueError: audio like that is not read here.
    """

    kind: Kind
    bits: int
    """Of the room that a sample takes."""
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        if (self.kind, self.bits) not in _READ:
            raise ValueError(f"{self.bits} bits of {self.kind} is no kind of sample that is known here")
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"it has {self.channels} channels")
        if self.sample_rate < _LEAST_RATE or (self._factor is None):
            raise ValueError(f"its sample rate is {self.sample_rate} Hz")
        if not self.is_taken and self.kind in ("alaw", "mulaw"):
            raise ValueError(f"it has {self.channels} channels of {self.kind} at {self.sample_rate} Hz")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame: a sample of every channel."""
        return self.bits // 8 * self.channels

    @property
    def is_taken(self) -> bool:
        """Whether the service takes them as they are."""
        return (self.kind, self.bits) in _TAKEN and self.channels <= 2 and self.sample_rate <= _MOST_RATE

    @property
    def format(self) -> AudioFormat:
        """What is sent to the service."""
        encoding = _TAKEN.get((self.kind, self.bits)) or ("pcm_f32le" if self.kind == "float" else "pcm_s16le")
        return AudioFormat(
            encoding, self.sample_rate // (self._factor or 1), self.channels if self.channels <= 2 else 1
        )

    def seconds(self, size: int) -> float:
        """How long so many bytes last."""
        return size / self.frame_bytes / self.sample_rate

    @property
    def _factor(self) -> int | None:
        """By how much the rate is divided; None where no whole number leads to a rate that is taken."""
        least = -(-self.sample_rate // _MOST_RATE)
        most = self.sample_rate // _LEAST_RATE
        return next((each for each in range(least, most + 1) if self.sample_rate % each == 0), None)

    def converted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Audio of this kind, in pieces of any size, as the service takes it.

        Nothing is done to what is taken as it is. Integers become 16-bit ones, a 64-bit float a 32-bit one; more than
        two channels are mixed into one, and a rate above 48 kHz is divided by a whole number.
        """
        if self.is_taken:
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
    """Divides the rate of one channel by a whole number: a low-pass filter that is asked for every n-th value only."""

    def __init__(self, factor: int) -> None:
        reach = _CROSSINGS * factor
        taps = [_windowed_sinc(offset / factor, reach / factor) for offset in range(-reach, reach + 1)]
        self._offsets = [offset for offset, tap in enumerate(taps) if tap]
        whole = sum(taps)
        self._taps = [taps[offset] / whole for offset in self._offsets]
        self._factor = factor
        self._length = len(taps)
        self._reach = reach
        self._kept: list[float] = [0.0] * reach

    def push(self, plane: Sequence[float]) -> list[float]:
        kept = [*self._kept, *plane]
        count = max(0, (len(kept) - self._length) // self._factor + 1)
        span = (count - 1) * self._factor + 1
        columns = [kept[offset : offset + span : self._factor] for offset in self._offsets] if count else []
        self._kept = kept[count * self._factor :]
        taps = self._taps
        return [_sumprod(taps, frame) for frame in zip(*columns, strict=True)]

    def flush(self) -> list[float]:
        return self.push([0.0] * self._reach)


def _windowed_sinc(position: float, reach: float) -> float:
    """The ideal filter, cut off softly; exactly 0 where that is."""
    if position == 0:
        return 1.0
    if position == int(position):
        return 0.0
    return math.sin(math.pi * position) / (math.pi * position) * (0.5 + 0.5 * math.cos(math.pi * position / reach))


def _little_endian(code: str, audio: bytes | bytearray) -> array[Any]:
    samples = array(code, audio)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _upper(width: int, code: str, audio: bytes) -> array[Any]:
    """The upper 16 bits of integers of so many bytes."""
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
