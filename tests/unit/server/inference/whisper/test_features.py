import numpy as np
import pytest
import torch

from server.inference.whisper.features import SAMPLES_PER_ENCODER_FRAME, LogMel

RATE = 16_000


def sweep(seconds: float, level: float = 0.3) -> np.ndarray:
    """A rising tone with a little noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(size=len(time)) * 0.01
    return (level * np.sin(2 * np.pi * (200 + 900 * time) * time) + noise).astype(np.float32)


@pytest.mark.parametrize("mel_bins", [80, 128])
@pytest.mark.parametrize(("seconds", "encoder_frames"), [(2.3, 192), (4.0, 256), (28.0, 1500)])
def test_features_equal_transformers_on_the_same_padded_audio(
    mel_bins: int, seconds: float, encoder_frames: int
) -> None:
    from transformers import WhisperFeatureExtractor  # as in conftest.py

    extractor = WhisperFeatureExtractor(feature_size=mel_bins)
    samples = sweep(seconds)
    expected = extractor(
        samples,
        sampling_rate=RATE,
        return_tensors="pt",
        padding="max_length",
        max_length=encoder_frames * SAMPLES_PER_ENCODER_FRAME,
    ).input_features
    ours = LogMel(mel_bins, torch.device("cpu"))([samples], encoder_frames)
    assert ours.shape == (1, mel_bins, 2 * encoder_frames)
    # torchaudio computes the mel filters in float32, transformers in float64.
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_an_utterance_has_the_same_features_in_a_batch_as_alone() -> None:
    mel = LogMel(80, torch.device("cpu"))
    loud, quiet = sweep(2.0), sweep(1.0, level=0.001)
    together = mel([loud, quiet], 128)
    for row, samples in zip(together, (loud, quiet), strict=True):
        torch.testing.assert_close(row, mel([samples], 128)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(RATE, np.float32)])
def test_silence_has_finite_features(samples: np.ndarray) -> None:
    assert LogMel(80, torch.device("cpu"))([samples], 64).isfinite().all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_invalid_samples_do_not_spread_to_other_rows(value: float) -> None:
    mel = LogMel(80, torch.device("cpu"))
    broken = sweep(1.0)
    broken[100:200] = value
    together = mel([broken, sweep(1.0)], 64)
    assert together.isfinite().all()
    torch.testing.assert_close(together[1], mel([sweep(1.0)], 64)[0])


def test_samples_in_a_read_only_buffer_are_accepted() -> None:
    mel = LogMel(80, torch.device("cpu"))
    samples = sweep(1.0)
    frozen = np.frombuffer(samples.tobytes(), np.float32)
    torch.testing.assert_close(mel([frozen], 64), mel([samples], 64))
