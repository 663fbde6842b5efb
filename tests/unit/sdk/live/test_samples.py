"""Conversion of samples to formats that the service supports."""

from __future__ import annotations

import numpy as np
import pytest
from dalston.live.audio_format import AudioFormat
from dalston.live.samples import Kind, Samples

RATE = 16_000
WAVE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def pieces(audio: bytes, size: int = 1001) -> list[bytes]:
    return [audio[start : start + size] for start in range(0, len(audio), size)]


def packed(wave: np.ndarray, kind: Kind, bits: int) -> bytes:
    """Encodes a wave of values from -1 to 1 as in a WAV file."""
    if kind == "float":
        return wave.astype(f"<f{bits // 8}").tobytes()
    scaled = np.round(wave * (1 << (bits - 1))).astype("<i4")
    if bits == 8:
        return (scaled + 128).astype("u1").tobytes()
    if bits == 24:
        return scaled.reshape(-1).view("u1").reshape(-1, 4)[:, :3].tobytes()
    return scaled.astype(f"<i{bits // 8}").tobytes()


def decoded(audio: bytes, format_: AudioFormat) -> np.ndarray:
    if format_.encoding == "pcm_f32le":
        return np.frombuffer(audio, "<f4").reshape(-1, format_.channels)
    return np.frombuffer(audio, "<i2").reshape(-1, format_.channels) / 32768


@pytest.mark.parametrize(("kind", "bits"), [("pcm", 8), ("pcm", 24), ("pcm", 32), ("float", 64)])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_sample_widths_are_converted(kind: Kind, bits: int, channels: int) -> None:
    samples = Samples(kind, bits, RATE, channels)
    wave = np.stack([WAVE] * channels, 1)
    assert (samples.format.sample_rate, samples.format.channels, samples.is_supported) == (RATE, channels, False)
    out = decoded(b"".join(samples.converted(pieces(packed(wave, kind, bits)))), samples.format)
    assert out.shape == wave.shape
    assert np.abs(out - wave).max() < (0.01 if bits == 8 else 0.0001)


@pytest.mark.parametrize(("kind", "bits"), [("pcm", 16), ("float", 32)])
def test_more_than_two_channels_are_mixed(kind: Kind, bits: int) -> None:
    samples = Samples(kind, bits, RATE, 6)
    wave = np.stack([WAVE * share for share in (0, 0.2, 0.4, 0.6, 0.8, 1)], 1)
    assert samples.format.channels == 1
    out = decoded(b"".join(samples.converted(pieces(packed(wave, kind, bits)))), samples.format)
    assert np.abs(out[:, 0] - WAVE / 2).max() < 0.0001


@pytest.mark.parametrize("rate", [88_200, 96_000, 176_400, 192_000])
@pytest.mark.parametrize("kind", ["pcm", "float"])
def test_high_sample_rate_is_divided_without_aliasing(rate: int, kind: Kind) -> None:
    samples = Samples(kind, 32, rate, 2)
    time = np.arange(rate // 4) / rate
    voice, whistle = 0.5 * np.sin(2 * np.pi * 3000 * time), 0.4 * np.sin(2 * np.pi * 41_000 * time)
    out = decoded(
        b"".join(samples.converted(pieces(packed(np.stack([voice + whistle, voice], 1), kind, 32)))), samples.format
    )
    lower = samples.format.sample_rate
    assert 44_100 <= lower <= 48_000
    assert len(out) == lower // 4
    expected = 0.5 * np.sin(2 * np.pi * 3000 * np.arange(lower // 4) / lower)
    inside = slice(100, -100)
    assert np.abs(out[inside, 0] - expected[inside]).max() < 0.01
    assert np.abs(out[inside, 1] - expected[inside]).max() < 0.01


def test_loud_samples_are_clipped_without_overflow() -> None:
    samples = Samples("pcm", 16, 96_000, 1)
    square = np.where(np.arange(9600) // 48 % 2, 32767, -32768).astype("<i2")
    out = np.frombuffer(b"".join(samples.converted([square.tobytes()])), "<i2")
    assert abs(int(out.max()) - 32767) < 10
    assert np.sign(out[10:14]).tolist() == [-1] * 4


def test_supported_samples_are_not_converted() -> None:
    assert list(Samples("pcm", 16, 48_000, 2).converted([b"1", b"", b"23"])) == [b"1", b"", b"23"]
