"""Detects hallucinations: text without speech behind it. Pure, and the same for every language.

Whisper produces text for silence and noise as readily as for speech. No single signal separates the two without
suppressing true words, so each rule requires two.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

Reason = Literal["no_speech", "improbable", "sparse", "repetitive"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The signals for one text."""

    text: str
    mean_log_probability: float
    no_speech_probability: float
    tokens_per_second: float
    """Over the whole utterance, silence included."""
    looped: bool
    """Whether the decoder was stopped because it repeated itself, with the full window too."""
    first_log_probability: float = 0.0
    """Of the text's first token."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """The thresholds.

    Of 349 spoken utterances in four languages those closest to being suppressed have a mean log probability of -1.07
    with a no-speech probability of 0.17, and -0.42 with 0.73. `benchmarks/non_speech.py` measures both kinds of error.
    """

    no_speech: float = 0.5
    """No-speech probability from which a text needs a minimum probability."""
    doubtful: float = -0.9
    """The minimum mean log probability if the no-speech probability is at that threshold..."""
    doubtful_in_silence: float = -0.2
    """...and if it is 1; in between it is interpolated linearly. Beam search finds probable texts for any sound, above
    all repetitive ones."""
    unsure: float = 0.36
    """No-speech probability from which the beginning of a text must not be a guess: for music the full window has 0.41
    to 0.62, and half of the time finds speech."""
    guess: float = -3.0
    """Log probability of the first token below which it is a guess. A hallucination begins with a guess, and its other
    tokens follow from it: for music -3.3 to -4.4, while the least probable beginning of a spoken word has -2.9."""
    sure: float = -0.4
    """Mean log probability from which the beginning is not checked."""
    improbable: float = -1.5
    """Mean log probability below which every text is suppressed."""
    sparse: float = 0.5
    """Tokens per second below which a doubtful text is suppressed: speech has more, in any language."""
    compression: float = 2.4
    """Compression ratio above which a text counts as repetitive."""

    def least_likely(self, no_speech_probability: float) -> float:
        """The minimum mean log probability at a no-speech probability above `no_speech`."""
        share = (no_speech_probability - self.no_speech) / (1 - self.no_speech)
        return self.doubtful + share * (self.doubtful_in_silence - self.doubtful)


def invented(evidence: Evidence, limits: GuardLimits = GuardLimits()) -> Reason | None:
    """Why the text counts as a hallucination, or None if it does not."""
    if not evidence.text:
        return None
    silent = evidence.no_speech_probability > limits.no_speech
    doubtful = evidence.mean_log_probability < limits.doubtful
    if silent and evidence.mean_log_probability < limits.least_likely(evidence.no_speech_probability):
        return "no_speech"
    guessed = evidence.first_log_probability < limits.guess and evidence.mean_log_probability < limits.sure
    if guessed and evidence.no_speech_probability >= limits.unsure:
        return "no_speech"
    if evidence.mean_log_probability < limits.improbable:
        return "improbable"
    if evidence.tokens_per_second < limits.sparse and doubtful:
        return "sparse"
    if compression_ratio(evidence.text) > limits.compression and (evidence.looped or doubtful or silent):
        return "repetitive"
    return None


def compression_ratio(text: str) -> float:
    """The size of the text over its compressed size; below 1 for a short text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
