"""Times the tokens of a text by one more pass over it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from server.inference.decoding.alignment import Alignment
from server.inference.decoding.words import TimedTokens
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.special_tokens import SECONDS_PER_TIMESTAMP, SpecialTokens


@dataclass(frozen=True, slots=True)
class UntimedText:
    """A text whose tokens are to be timed."""

    tokens: Sequence[int]
    """Without timestamps; at least one."""
    log_probabilities: Sequence[float]
    language: str
    seconds: float
    """Length of the audio."""


class WordTimer:
    """Reads the tokens without timestamps, the condition under which the alignment heads were chosen.

    Recording the heads during decoding would cost more: it would record every attempt and every beam.
    """

    def __init__(self, decoder: Decoder, special_tokens: SpecialTokens, device: torch.device) -> None:
        self._decoder = decoder
        self._special_tokens = special_tokens
        self._device = device

    def times(self, state: DecoderState, rows: Sequence[int], texts: Sequence[UntimedText]) -> list[TimedTokens]:
        """The times of the tokens of each text; `rows` are their rows in the batch whose audio is in `state`."""
        prompts = [[*self._special_tokens.prompt(each.language), self._special_tokens.no_timestamps] for each in texts]
        tokens = [[*prompt, *each.tokens] for prompt, each in zip(prompts, texts, strict=True)]
        encoder_frames = [math.ceil(each.seconds / SECONDS_PER_TIMESTAMP) for each in texts]
        alignment = Alignment([len(row) for row in tokens], encoder_frames, self._device)
        longest = max(map(len, tokens))
        padded = [row + [self._special_tokens.end] * (longest - len(row)) for row in tokens]
        passed = self._decoder.start_again(state, rows, longest)
        self._decoder.step(passed, torch.tensor(padded, device=self._device), alignment.add)
        starts = [alignment.starts(row, len(prompt) - 1) for row, prompt in enumerate(prompts)]
        return [
            TimedTokens(each.tokens, each.log_probabilities, np.minimum(seconds, each.seconds).tolist())
            for each, seconds in zip(
                texts, (encoder_frames * SECONDS_PER_TIMESTAMP for encoder_frames in starts), strict=True
            )
        ]
