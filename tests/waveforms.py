"""Reads files in version 2 of the binary "waveform data" format, as its description states."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Waveform:
    sample_rate: int
    samples_per_pixel: int
    pairs: list[tuple[int, int]]
    """Least and greatest sample, -128 to 127."""

    @property
    def seconds(self) -> float:
        return len(self.pairs) * self.samples_per_pixel / self.sample_rate

    @property
    def is_silent(self) -> bool:
        return all(pair == (0, 0) for pair in self.pairs)


def read_waveform(data: bytes) -> Waveform:
    version, flags, sample_rate, samples_per_pixel, length, channels = struct.unpack_from("<iIiiIi", data)
    assert (version, flags & 1, channels) == (2, 1, 1)
    assert len(data) == 24 + 2 * length
    values = struct.unpack(f"{2 * length}b", data[24:])
    return Waveform(sample_rate, samples_per_pixel, list(zip(values[::2], values[1::2], strict=True)))
