"""Which language an utterance is taken to be in. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

SURE = 0.8
"""Probability from which a language is believed against the one that was spoken before.

Of the first seconds of 88 utterances in four languages 29 are taken for a wrong one, and two as surely as this; of the
whole utterances 3, and none; 81 are right and as sure.
"""


@dataclass(frozen=True, slots=True)
class Detected:
    """A language, and how likely the model finds it among all it knows."""

    language: str
    probability: float


def detected(chances: Mapping[str, float], expected: str | None = None) -> Detected:
    """The likeliest language, or the one expected, unless the model is sure of another.

    A short utterance tells little of its language, and a wrong one makes nonsense of it.
    """
    likeliest = max(chances, key=lambda language: chances[language])
    if expected is not None and expected in chances and chances[likeliest] < SURE:
        likeliest = expected
    return Detected(likeliest, chances[likeliest])
