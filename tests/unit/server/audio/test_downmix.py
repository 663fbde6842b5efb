import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio.decoder import Decoder
from server.audio.format import AudioFormat, Encoding

RATE = 16_000
NOISE = np.random.default_rng(7)


def voice(seconds: float, level: float = 0.3) -> np.ndarray:
    """A tone that swells and fades like syllables."""
    time = np.arange(int(seconds * RATE)) / RATE
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    return (level * envelope * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def mixed(left: np.ndarray, right: np.ndarray, chunk: int = 1_600) -> np.ndarray:
    decoder = Decoder(AudioFormat(Encoding.PCM_F32LE, RATE, 2))
    data = np.stack((left, right), axis=1).astype("<f4")
    pieces = [decoder.push(data[at : at + chunk].tobytes()) for at in range(0, len(data), chunk)]
    return np.concatenate([*pieces, decoder.finish()])


def power(samples: np.ndarray) -> float:
    return float(np.square(samples).mean())


@pytest.mark.parametrize("chunk", [1, 160, 320, 16_000])
def test_an_inverted_channel_does_not_silence_the_other(chunk: int) -> None:
    left = voice(1)
    output = mixed(left, -left, chunk)
    assert power(output) > 0.95 * power(left)
    # The selection between equal channels is permanent: the output is one of them, not pieces of both.
    np.testing.assert_allclose(np.abs(output[500:]), np.abs(left[500:]), atol=1e-6)
    assert abs(np.corrcoef(output[500:], left[500:])[0, 1]) > 0.999


def test_nearly_inverted_channels_become_the_louder_one() -> None:
    left = voice(1)
    np.testing.assert_allclose(mixed(left, -0.8 * left)[1_600:], left[1_600:], atol=1e-6)
    np.testing.assert_allclose(mixed(-0.8 * left, left)[1_600:], left[1_600:], atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.2])
def test_channels_that_do_not_cancel_each_other_out_are_averaged(share: float) -> None:
    left = voice(1)
    np.testing.assert_array_equal(mixed(left, share * left), (left + np.float32(share) * left) / 2)


def test_two_speakers_on_a_channel_each_are_both_kept() -> None:
    silence = np.zeros(RATE, np.float32)
    left, right = np.concatenate((voice(1), silence)), np.concatenate((silence, voice(1)))
    np.testing.assert_array_equal(mixed(left, right), (left + right) / 2)


def test_two_simultaneous_speakers_are_both_kept() -> None:
    left, right = NOISE.normal(0, 0.1, (2, RATE)).astype(np.float32)
    np.testing.assert_allclose(mixed(left, right), (left + right) / 2, atol=1e-7)


def test_a_change_from_one_mix_to_another_does_not_click() -> None:
    time = np.arange(2 * RATE) / RATE
    left = (0.5 * np.sin(2 * np.pi * 100 * time)).astype(np.float32)
    right = np.where(time < 1, left, -left)
    output = mixed(left, right, 320)
    steepest = np.abs(np.diff(left)).max()
    assert np.abs(np.diff(output)).max() < 3 * steepest
    assert power(output[int(1.5 * RATE) :]) > 0.95 * power(left)


def test_channels_that_stop_cancelling_are_averaged_again() -> None:
    left = voice(2)
    right = np.concatenate((-left[:RATE], left[RATE:] * 0.5))
    output = mixed(left, right, 320)
    np.testing.assert_allclose(output[-RATE // 4 :], 0.75 * left[-RATE // 4 :], atol=1e-6)


def test_noise_in_pauses_does_not_undo_the_selection() -> None:
    speech = np.concatenate([voice(0.5), np.zeros(RATE // 2, np.float32)] * 4)
    left, right = speech + NOISE.normal(0, 1e-3, len(speech)), -speech + NOISE.normal(0, 1e-3, len(speech))
    output = mixed(left.astype(np.float32), right.astype(np.float32), 320)
    for start in range(0, len(speech), RATE):
        part = slice(start, start + RATE // 2)
        assert power(output[part]) > 0.95 * power(speech[part])


@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), max_size=200), st.integers(1, 50))
def test_no_sample_is_louder_than_the_channels_or_lost(sample_frames: list[tuple[float, float]], chunk: int) -> None:
    both = np.array(sample_frames, np.float32).reshape(-1, 2)
    output = mixed(both[:, 0], both[:, 1], chunk)
    assert len(output) == len(both)
    assert np.all(np.abs(output) <= np.abs(both).max(axis=1, initial=0) + 1e-6)
