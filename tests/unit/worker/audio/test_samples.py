"""Samples of a recording by position."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from server.audio.decoder import MODEL_RATE, Decoder
from server.audio.format import AudioFormat, Encoding
from worker.audio.samples import SampleReader, format_of

FORMATS = [
    AudioFormat(Encoding.PCM_S16LE, 16_000, 1),
    AudioFormat(Encoding.PCM_S16LE, 16_000, 2),
    AudioFormat(Encoding.MULAW, 8_000, 1),
    AudioFormat(Encoding.PCM_F32LE, 44_100, 2),
    AudioFormat(Encoding.PCM_S16LE, 11_025, 1),
    AudioFormat(Encoding.ALAW, 48_000, 1),
]


@dataclass
class Recording:
    """A recording in memory, which notes what is read."""

    data: bytes
    format: AudioFormat
    largest: int = 0
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.data) // self.format.frame_bytes

    async def read(self, first: int, last: int) -> bytes:
        assert 0 <= first <= last <= self.frames
        self.largest = max(self.largest, last - first)
        return self.data[first * self.format.frame_bytes : last * self.format.frame_bytes]


def recording(audio_format: AudioFormat, seconds: float) -> Recording:
    """A sum of tones, so that samples of the resampled audio are known."""
    times = np.arange(round(seconds * audio_format.sample_rate)) / audio_format.sample_rate
    mono = tone(times)
    frames = np.repeat(mono, audio_format.channels)
    if audio_format.encoding is Encoding.PCM_F32LE:
        return Recording(frames.astype("<f4").tobytes(), audio_format)
    if audio_format.encoding is Encoding.PCM_S16LE:
        return Recording(np.rint(frames * 32767).astype("<i2").tobytes(), audio_format)
    codes = np.random.default_rng(1).integers(0, 256, len(frames)).astype(np.uint8)
    return Recording(codes.tobytes(), audio_format)


def tone(times: np.ndarray) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * times) + 0.2 * np.sin(2 * np.pi * 1000 * times)


@pytest.mark.parametrize("audio_format", FORMATS, ids=str)
async def test_a_part_has_the_same_samples_whatever_was_read_before(audio_format: AudioFormat) -> None:
    file = recording(audio_format, 8.4)
    reader = SampleReader(file, audio_format)
    assert reader.length == pytest.approx(8.4 * MODEL_RATE, abs=1)
    parts = [(0, 5000), (47_900, 70_001), (16_000, 32_000), (100_000, reader.length)]
    first = [await reader.read(*part) for part in parts]
    for part, samples in zip(reversed(parts), reversed(first), strict=True):
        again = await SampleReader(file, audio_format).read(*part)
        assert samples.dtype == np.float32
        assert len(samples) == part[1] - part[0]
        assert again.tobytes() == samples.tobytes()


@pytest.mark.parametrize(
    "audio_format", [each for each in FORMATS if each.encoding in (Encoding.PCM_S16LE, Encoding.PCM_F32LE)], ids=str
)
async def test_samples_are_those_of_their_time(audio_format: AudioFormat) -> None:
    reader = SampleReader(recording(audio_format, 6.0), audio_format)
    for first, last in ((0, 4000), (20_123, 41_000), (90_000, 95_500)):
        expected = tone(np.arange(first, last) / MODEL_RATE)
        # The resampler has transients at both ends of the recording.
        assert np.abs((await reader.read(first, last) - expected)[200:]).max() < 0.01


async def test_two_parts_join_without_a_gap() -> None:
    audio_format = AudioFormat(Encoding.PCM_S16LE, 44_100, 1)
    reader = SampleReader(recording(audio_format, 5.0), audio_format)
    both = np.concatenate((await reader.read(16_000, 30_777), await reader.read(30_777, 60_000)))
    assert np.abs(both - await reader.read(16_000, 60_000)).max() < 1e-4


async def test_memory_holds_the_part_and_not_the_recording() -> None:
    audio_format = AudioFormat(Encoding.MULAW, 8_000, 1)
    file = recording(audio_format, 120.0)
    reader = SampleReader(file, audio_format)
    await reader.read(60 * MODEL_RATE, 61 * MODEL_RATE)
    assert file.largest <= 4 * 8_000


async def test_what_is_beyond_the_end_is_not_there() -> None:
    reader = SampleReader(recording(FORMATS[0], 1.0), FORMATS[0])
    assert len(await reader.read(15_000, 99_000)) == 1_000
    assert len(await reader.read(16_000, 17_000)) == 0
    empty = SampleReader(Recording(b"", FORMATS[0]), FORMATS[0])
    assert (empty.length, len(await empty.read(0, 100))) == (0, 0)


async def test_the_samples_of_model_format_are_exactly_those_of_the_decoder() -> None:
    file = recording(FORMATS[0], 2.0)
    whole = Decoder(FORMATS[0]).push(file.data)
    assert (await SampleReader(file, FORMATS[0]).read(7, 30_001)).tobytes() == whole[7:30_001].tobytes()


def test_the_format_of_a_row_is_that_of_the_decoder() -> None:
    assert format_of("mulaw", 8_000, 1) == AudioFormat(Encoding.MULAW, 8_000, 1)
