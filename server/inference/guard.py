"""Tells what was said from what the model made up. Pure, and the same in every language.

Over silence and noise Whisper writes text as readily as over speech. No single sign gives that away without taking true
words along, so each rule asks for two.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

Reason = Literal["no_speech", "improbable", "repetitive"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a text."""

    text: str
    mean_log_probability: float
    no_speech_probability: float
    looped: bool
    """Whether the decoder was stopped because it repeated itself, with the full window too."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Where the lines are drawn.

    Of 349 spoken utterances in four languages the likeliest to be suppressed have -1.07 with a no-speech probability of
    0.17, and 0.73 with -0.42; of 114 clips of silence, noise and tones all but two lie beyond the lines.
    """

    no_speech: float = 0.5
    """No-speech probability from which a text must be likely to be believed."""
    doubtful: float = -0.9
    """Mean log probability below which a text needs the model to be sure that there is speech."""
    improbable: float = -1.5
    """Mean log probability below which no text is believed."""
    compression: float = 2.4
    """Bytes over compressed bytes from which a text repeats itself."""


def invented(evidence: Evidence, limits: GuardLimits = GuardLimits()) -> Reason | None:
    """Why the text is taken to be invented, or None if it is believed."""
    if not evidence.text:
        return None
    doubtful = evidence.mean_log_probability < limits.doubtful
    if evidence.no_speech_probability > limits.no_speech and doubtful:
        return "no_speech"
    if evidence.mean_log_probability < limits.improbable:
        return "improbable"
    if compression_ratio(evidence.text) > limits.compression and (evidence.looped or doubtful):
        return "repetitive"
    return None


def compression_ratio(text: str) -> float:
    """How many times smaller the text gets when it is compressed; below 1 for a short text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))
