import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from server.audio.decoder import Decoder
from server.audio.format import AudioFormat, Encoding

RATES = [8000, 11025, 16000, 22050, 44100, 48000]


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def decode(audio_format: AudioFormat, data: bytes, chunk_sample_frames: int) -> np.ndarray:
    decoder = Decoder(audio_format)
    step = chunk_sample_frames * audio_format.frame_bytes
    pieces = [decoder.push(data[start : start + step]) for start in range(0, len(data), step)]
    return np.concatenate([*pieces, decoder.finish()])


@pytest.mark.parametrize(("encoding", "subtype"), [(Encoding.MULAW, "ULAW"), (Encoding.ALAW, "ALAW")])
def test_telephone_codes_decode_as_libsndfile_decodes_them(encoding: Encoding, subtype: str) -> None:
    codes = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(codes), samplerate=8000, channels=1, subtype=subtype, format="RAW", dtype="float32"
    )
    decoded = Decoder(AudioFormat(encoding=encoding)).push(codes)
    np.testing.assert_array_equal(decoded, expected)


def test_16_bit_samples_scale_to_full_scale_one() -> None:
    data = np.array([-32768, 0, 16384], "<i2").tobytes()
    assert Decoder(AudioFormat()).push(data).tolist() == [-1.0, 0.0, 0.5]


def test_two_channels_are_mixed_down() -> None:
    data = np.array([[16384, 0], [-16384, 16384]], "<i2").tobytes()
    assert Decoder(AudioFormat(channels=2)).push(data).tolist() == [0.25, 0.0]


def test_floats_that_are_not_numbers_become_silence_or_full_scale() -> None:
    data = np.array([np.nan, np.inf, -np.inf, 3.0, 0.25], "<f4").tobytes()
    decoded = Decoder(AudioFormat(encoding=Encoding.PCM_F32LE)).push(data)
    assert decoded.tolist() == [0.0, 1.0, -1.0, 1.0, 0.25]


@pytest.mark.parametrize("rate", RATES)
def test_resampled_audio_stays_aligned_with_its_source(rate: int) -> None:
    """A click at a known time is found at that time, to a sample, whatever the rate."""
    source = np.zeros(rate, np.float32)
    source[rate // 2] = 1.0
    audio_format = AudioFormat(encoding=Encoding.PCM_F32LE, sample_rate=rate)
    decoded = decode(audio_format, source.tobytes(), chunk_sample_frames=rate // 50)
    assert abs(int(np.abs(decoded).argmax()) - 8000) <= 1
    assert abs(len(decoded) - 16_000) <= 1


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_pitch_and_level(rate: int) -> None:
    audio_format = AudioFormat(encoding=Encoding.PCM_F32LE, sample_rate=rate)
    decoded = decode(audio_format, tone(rate).tobytes(), chunk_sample_frames=rate // 10)
    middle = slice(1000, 15_000)
    np.testing.assert_allclose(decoded[middle], tone(16_000)[middle], atol=2e-3)


@given(st.integers(1, 2000), st.sampled_from(RATES))
def test_chunking_does_not_change_what_is_decoded(chunk_sample_frames: int, rate: int) -> None:
    data = tone(rate, seconds=0.1).tobytes()
    audio_format = AudioFormat(encoding=Encoding.PCM_F32LE, sample_rate=rate)
    whole = decode(audio_format, data, chunk_sample_frames=len(data))
    np.testing.assert_allclose(decode(audio_format, data, chunk_sample_frames), whole, atol=1e-6)
