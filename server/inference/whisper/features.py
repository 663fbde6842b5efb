"""Log-mel features as Whisper was trained on them, for audio of any length."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from server.inference.torchaudio_compat import torchaudio

SAMPLE_RATE = 16_000
SAMPLES_PER_ENCODER_FRAME = 320
"""Samples in one encoder frame of 20 ms, which is two mel frames."""


class LogMel:
    """Turns utterances into mel frames; equal to transformers' WhisperFeatureExtractor on the same padded audio."""

    def __init__(self, mel_bins: int, device: torch.device) -> None:
        self._device = device
        self._mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=400,
            hop_length=160,
            n_mels=mel_bins,
            f_max=8000.0,
            norm="slaney",
            mel_scale="slaney",
        ).to(device)

    def __call__(self, utterances: Sequence[NDArray[np.float32]], encoder_frames: int) -> torch.Tensor:
        """[utterances, mel_bins, 2 * encoder_frames] in float32. Shorter audio is padded with silence, longer is cut.

        Args:
            utterances: mono samples at 16 kHz.
            encoder_frames: the window, in encoder frames of 20 ms.
        """
        samples = np.zeros((len(utterances), encoder_frames * SAMPLES_PER_ENCODER_FRAME), np.float32)
        for row, utterance in zip(samples, utterances, strict=True):
            kept = utterance[: len(row)]
            row[: len(kept)] = kept
        # A client's floats may be anything, and a NaN in one row would spread to the whole batch.
        np.nan_to_num(samples, copy=False, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        # The last mel frame reaches past the end: Whisper was trained without it.
        power = self._mel(torch.from_numpy(samples).to(self._device))[..., :-1]
        log = power.clamp(min=1e-10).log10()
        # Each utterance's own range is cut off 80 dB below its loudest bin.
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
        scaled: torch.Tensor = (log + 4.0) / 4.0
        return scaled
