import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio.decoder import Decoder
from server.audio.format import AudioFormat, Encoding

RATE = 16_000
NOISE = np.random.default_rng(7)


def voice(seconds: float, level: float = 0.3) -> np.ndarray:
    """Sound that swells and fades as syllables do."""
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
def test_a_channel_that_is_the_other_inverted_does_not_silence_it(chunk: int) -> None:
    left = voice(1)
    heard = mixed(left, -left, chunk)
    assert power(heard) > 0.95 * power(left)
    # The choice between two equals is one for good: the sound is one of them, not pieces of both.
    np.testing.assert_allclose(np.abs(heard[500:]), np.abs(left[500:]), atol=1e-6)
    assert abs(np.corrcoef(heard[500:], left[500:])[0, 1]) > 0.999


def test_nearly_inverted_channels_give_the_louder() -> None:
    left = voice(1)
    np.testing.assert_allclose(mixed(left, -0.8 * left)[1_600:], left[1_600:], atol=1e-6)
    np.testing.assert_allclose(mixed(-0.8 * left, left)[1_600:], left[1_600:], atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.2])
def test_channels_that_do_not_cancel_each_other_out_are_averaged(share: float) -> None:
    left = voice(1)
    np.testing.assert_array_equal(mixed(left, share * left), (left + np.float32(share) * left) / 2)


def test_two_people_on_a_channel_each_are_both_heard() -> None:
    silence = np.zeros(RATE, np.float32)
    left, right = np.concatenate((voice(1), silence)), np.concatenate((silence, voice(1)))
    np.testing.assert_array_equal(mixed(left, right), (left + right) / 2)


def test_two_people_at_once_are_both_heard() -> None:
    left, right = NOISE.normal(0, 0.1, (2, RATE)).astype(np.float32)
    np.testing.assert_allclose(mixed(left, right), (left + right) / 2, atol=1e-7)


def test_a_change_from_one_mix_to_another_does_not_click() -> None:
    time = np.arange(2 * RATE) / RATE
    left = (0.5 * np.sin(2 * np.pi * 100 * time)).astype(np.float32)
    right = np.where(time < 1, left, -left)
    heard = mixed(left, right, 320)
    steepest = np.abs(np.diff(left)).max()
    assert np.abs(np.diff(heard)).max() < 3 * steepest
    assert power(heard[int(1.5 * RATE) :]) > 0.95 * power(left)


def test_channels_that_agree_again_are_averaged_again() -> None:
    left = voice(2)
    right = np.concatenate((-left[:RATE], left[RATE:] * 0.5))
    heard = mixed(left, right, 320)
    np.testing.assert_allclose(heard[-RATE // 4 :], 0.75 * left[-RATE // 4 :], atol=1e-6)


def test_pauses_of_noise_do_not_undo_the_choice() -> None:
    said = np.concatenate([voice(0.5), np.zeros(RATE // 2, np.float32)] * 4)
    left, right = said + NOISE.normal(0, 1e-3, len(said)), -said + NOISE.normal(0, 1e-3, len(said))
    heard = mixed(left.astype(np.float32), right.astype(np.float32), 320)
    for start in range(0, len(said), RATE):
        part = slice(start, start + RATE // 2)
        assert power(heard[part]) > 0.95 * power(said[part])


@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), max_size=200), st.integers(1, 50))
def test_no_sample_is_louder_than_the_channels_or_lost(frames: list[tuple[float, float]], chunk: int) -> None:
    both = np.array(frames, np.float32).reshape(-1, 2)
    heard = mixed(both[:, 0], both[:, 1], chunk)
    assert len(heard) == len(both)
    assert np.all(np.abs(heard) <= np.abs(both).max(axis=1, initial=0) + 1e-6)
