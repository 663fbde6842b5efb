import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio.format import AudioFormat, Encoding
from server.audio.waveform import WaveformBuilder
from tests.waveforms import Waveform, read_waveform


def made(audio_format: AudioFormat, *pieces: bytes) -> Waveform:
    builder = WaveformBuilder(audio_format)
    for piece in pieces:
        builder.push(piece)
    return read_waveform(builder.finish())


def test_a_pair_has_the_extremes_of_a_tenth_of_a_second() -> None:
    samples = np.zeros(4000, "<i2")
    samples[10], samples[1599] = -32768, 16384
    samples[1600] = 256
    samples[3999] = -512

    waveform = made(AudioFormat(), samples.tobytes())

    assert waveform == Waveform(16_000, 1600, [(-128, 64), (0, 1), (-2, 0)])
    assert waveform.seconds == pytest.approx(0.3)


def test_noise_below_a_step_is_silence() -> None:
    samples = np.tile(np.array([-255, 255], "<i2"), 800)

    assert made(AudioFormat(), samples.tobytes()).is_silent


@pytest.mark.parametrize(
    ("encoding", "silence", "loud"),
    [
        (Encoding.PCM_S16LE, b"\0\0", np.array([16384], "<i2").tobytes()),
        (Encoding.PCM_F32LE, bytes(4), np.array([0.5], "<f4").tobytes()),
        (Encoding.MULAW, b"\xff", b"\x90"),
        (Encoding.ALAW, b"\xd5", b"\xa5"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 44_100, 48_000])
def test_every_stored_encoding(
    encoding: Encoding, silence: bytes, loud: bytes, channels: int, sample_rate: int
) -> None:
    audio_format = AudioFormat(encoding, sample_rate, channels)
    quiet = silence * channels * sample_rate
    # In the last channel only.
    word = (silence * (channels - 1) + loud) * (sample_rate // 2)

    waveform = made(audio_format, quiet, word)

    assert waveform.sample_rate == sample_rate
    assert waveform.seconds == pytest.approx(1.5, abs=0.11)
    assert max(greatest for _, greatest in waveform.pairs[:9]) <= 1
    assert [pair[1] == pytest.approx(64, abs=2) for pair in waveform.pairs[11:14]] == [True] * 3


def test_floats_beyond_full_scale_and_none_at_all() -> None:
    samples = np.array([2.0, -3.0, np.nan, np.inf], "<f4")

    assert made(AudioFormat(Encoding.PCM_F32LE), samples.tobytes()).pairs == [(-128, 127)]


def test_channels_that_cancel_each_other_out_are_drawn() -> None:
    samples = np.tile(np.array([8192, -8192], "<i2"), 1600)

    assert made(AudioFormat(channels=2), samples.tobytes()).pairs == [(-32, 32)]


def test_a_recording_without_audio() -> None:
    assert made(AudioFormat()).pairs == []


@given(data=st.binary(max_size=20_000), cuts=st.lists(st.integers(0, 20_000), max_size=5))
def test_the_division_into_pieces_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]

    assert made(AudioFormat(sample_rate=8_000, channels=2), *pieces) == made(
        AudioFormat(sample_rate=8_000, channels=2), data
    )
