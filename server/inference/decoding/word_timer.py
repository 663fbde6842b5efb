"""Times the tokens of what was written, by one more pass over it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from server.inference.decoding.alignment import Alignment
from server.inference.decoding.words import TimedTokens
from server.inference.whisper.decoder import Decoder, DecoderState
from server.inference.whisper.special_tokens import SECONDS_PER_STAMP, SpecialTokens


@dataclass(frozen=True, slots=True)
class Said:
    """A text whose tokens are to be timed."""

    tokens: Sequence[int]
    """Without timestamps; at least one."""
    log_probabilities: Sequence[float]
    language: str
    seconds: float
    """Length of the audio."""


class WordTimer:
    """Reads the tokens as the alignment heads were chosen, without timestamps.

    Watching the heads during the decoding costs more: it would watch every try and every beam.
    """

    def __init__(self, decoder: Decoder, special_tokens: SpecialTokens, device: torch.device) -> None:
        self._decoder = decoder
        self._vocabulary = special_tokens
        self._device = device

    def times(self, state: DecoderState, rows: Sequence[int], said: Sequence[Said]) -> list[TimedTokens]:
        """When the tokens of each text are said; `rows` are their rows in the batch whose audio `state` holds."""
        prompts = [[*self._vocabulary.prompt(each.language), self._vocabulary.no_timestamps] for each in said]
        tokens = [[*prompt, *each.tokens] for prompt, each in zip(prompts, said, strict=True)]
        frames = [math.ceil(each.seconds / SECONDS_PER_STAMP) for each in said]
        alignment = Alignment([len(row) for row in tokens], frames, self._device)
        longest = max(map(len, tokens))
        padded = [row + [self._vocabulary.end] * (longest - len(row)) for row in tokens]
        passed = self._decoder.start_again(state, rows, longest)
        self._decoder.step(passed, torch.tensor(padded, device=self._device), alignment.add)
        starts = [alignment.starts(row, len(prompt) - 1) for row, prompt in enumerate(prompts)]
        return [
            TimedTokens(each.tokens, each.log_probabilities, np.minimum(seconds, each.seconds).tolist())
            for each, seconds in zip(said, (frames * SECONDS_PER_STAMP for frames in starts), strict=True)
        ]
