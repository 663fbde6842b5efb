"""Tells what was said from what the model made up. Pure, and the same in every language.

Over silence and noise Whisper writes text as readily as over speech. No single sign gives that away without taking true
words along, so each rule asks for two.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

Reason = Literal["no_speech", "improbable", "sparse", "repetitive"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a text."""

    text: str
    mean_log_probability: float
    no_speech_probability: float
    tokens_per_second: float
    """Of the utterance, silence included."""
    looped: bool
    """Whether the decoder was stopped because it repeated itself, with the full window too."""
    first_log_probability: float = 0.0
    """Of the text's first token."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Where the lines are drawn.

    Of 349 spoken utterances in four languages the likeliest to be suppressed have -1.07 with a no-speech probability of
    0.17, and 0.73 with -0.42. `benchmarks/non_speech.py` measures both sides.
    """

    no_speech: float = 0.5
    """No-speech probability from which a text must be likely to be believed."""
    doubtful: float = -0.9
    """Mean log probability below which a text needs the model to be sure that there is speech..."""
    doubtful_in_silence: float = -0.2
    """...and where it is sure that there is none; between the two the line is straight. Beams find likely texts for
    any sound, above all such as repeat themselves."""
    unsure: float = 0.36
    """No-speech probability from which the beginning of a text must not be a guess: over music the full window finds
    speech half of the time, with 0.41 to 0.62."""
    guess: float = -3.0
    """Log probability of the first token below which it is one. A hallucination begins with a guess, and its other
    tokens follow: over music -3.3 to -4.4, while the least likely beginning of a spoken word has -2.9."""
    sure: float = -0.4
    """Mean log probability from which the beginning is not looked at."""
    improbable: float = -1.5
    """Mean log probability below which no text is believed."""
    sparse: float = 0.5
    """Tokens a second below which a doubtful text is not believed: who speaks says more, in any language."""
    compression: float = 2.4
    """Bytes over compressed bytes from which a text repeats itself."""

    def least_likely(self, no_speech_probability: float) -> float:
        """The mean log probability that a text must have at a no-speech probability above `no_speech`."""
        share = (no_speech_probability - self.no_speech) / (1 - self.no_speech)
        return self.doubtful + share * (self.doubtful_in_silence - self.doubtful)


def invented(evidence: Evidence, limits: GuardLimits = GuardLimits()) -> Reason | None:
    """Why the text is taken to be invented, or None if it is believed."""
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
    """How many times smaller the text gets when it is compressed; below 1 for a short text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
