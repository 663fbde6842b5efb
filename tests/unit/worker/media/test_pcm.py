from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worker.media.errors import Reason, UndecodableMedia
from worker.media.pcm import PcmWriter, TooMuchAudio


@dataclass
class FakeFrame:
    """A frame of planes, shape [channels, sample frames]."""

    planes: Any
    sample_rate: int = 16_000
    time: float | None = None

    @property
    def samples(self) -> int:
        return int(self.planes.shape[1])

    @property
    def layout(self) -> Any:
        return SimpleNamespace(nb_channels=self.planes.shape[0])

    @property
    def format(self) -> Any:
        return SimpleNamespace(is_planar=True)

    def to_ndarray(self) -> Any:
        return self.planes


def ramp(length: int, channels: int = 1, value: float = 0.25) -> Any:
    return np.full((channels, length), value, np.float32)


def written(frames: list[FakeFrame], *, most: float = 100.0, begins_at: float | None = None) -> Any:
    output = bytearray()
    writer = PcmWriter(output.extend, most, begins_at)
    for frame in frames:
        writer.push(frame)
    writer.finish()
    assert writer.seconds == len(output) / 32_000
    return np.frombuffer(bytes(output), "<i2")


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (np.array([[0, 1, -32768, 32767]], np.int16), [0, 1, -32768, 32767]),
        (np.array([[0, 65_536, -(1 << 31), (1 << 31) - 1]], np.int32), [0, 1, -32768, 32767]),
        (np.array([[128, 255, 0]], np.uint8), [0, 32512, -32768]),
        (np.array([[0.5, 2.0, -2.0, np.nan, np.inf]], np.float32), [16384, 32767, -32768, 0, 32767]),
        (np.array([[0.5, 1e300]], np.float64), [16384, 32767]),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_samples_of_every_format_become_16_bits(planes: Any, expected: list[int]) -> None:
    assert written([FakeFrame(planes)]).tolist() == expected


def test_the_output_has_the_length_of_the_input_at_any_rate() -> None:
    for rate in (4_000, 8_000, 11_025, 44_100, 48_000, 96_000, 384_000):
        assert len(written([FakeFrame(ramp(rate, 2), rate)] * 3)) == pytest.approx(48_000, abs=1)


def test_rates_and_channels_that_change_continue_the_output() -> None:
    frames = [FakeFrame(ramp(8_000), 8_000), FakeFrame(ramp(48_000, 2), 48_000), FakeFrame(ramp(16_000, 6), 16_000)]
    assert len(written(frames)) == pytest.approx(48_000, abs=2)


def test_absurd_rates_and_channels_are_refused() -> None:
    for frame in (FakeFrame(ramp(10), 3_999), FakeFrame(ramp(10), 384_001), FakeFrame(ramp(10, 65))):
        with pytest.raises(UndecodableMedia) as error:
            written([frame])
        assert error.value.reason is Reason.UNSUPPORTED_CODEC


def test_each_of_many_channels_is_in_the_mix() -> None:
    for channel in range(8):
        planes = np.zeros((8, 16_000), np.float32)
        planes[channel] = 0.8
        assert written([FakeFrame(planes)])[-1] == pytest.approx(0.8 / 4 / 2 * 32768, abs=2)


def test_a_gap_becomes_silence_and_jitter_does_not() -> None:
    frames = [FakeFrame(ramp(16_000), time=0.0), FakeFrame(ramp(16_000), time=3.0)]
    pcm = written(frames)
    assert len(pcm) == 4 * 16_000
    assert not pcm[16_000:48_000].any()
    jitter = [FakeFrame(ramp(1_600), time=0.1 * index + 0.04 * (index % 2)) for index in range(20)]
    assert len(written(jitter)) == 32_000


def test_small_gaps_add_up() -> None:
    frames = [FakeFrame(ramp(1_600), time=0.15 * index) for index in range(100)]
    assert len(written(frames)) == pytest.approx(15 * 16_000, abs=2_000)


def test_a_late_first_frame_follows_a_gap_only_if_the_file_begins_before_it() -> None:
    frame = [FakeFrame(ramp(16_000), time=5.0)]
    assert len(written(frame)) == 16_000
    assert len(written(frame, begins_at=0.0)) == 6 * 16_000
    assert len(written(frame, begins_at=4.0)) == 2 * 16_000


def test_timestamps_that_jump_are_not_a_gap() -> None:
    for jump in (-50.0, 700.0, 1e12):
        frames = [FakeFrame(ramp(16_000), time=100.0), FakeFrame(ramp(16_000), time=100.0 + jump)]
        assert len(written([*frames, FakeFrame(ramp(16_000), time=101.0 + jump)])) == 3 * 16_000


def test_the_limit_is_exact() -> None:
    assert len(written([FakeFrame(ramp(16_000))], most=1.0)) == 16_000
    with pytest.raises(TooMuchAudio):
        written([FakeFrame(ramp(16_001))], most=1.0)


def test_nothing_is_nothing() -> None:
    assert len(written([])) == 0
    assert len(written([FakeFrame(ramp(0))])) == 0
