"""Finds detected speech that the text does not cover. Pure.

Whisper sometimes leaves out whole sentences and is sure of the rest. The alignment of the text with the audio reveals
this: the token at which the model jumped is stretched over the missing part.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

UNCOVERED_SECONDS = 4.0
"""Speech without words counts as left out from this length on."""
TOKEN_SECONDS = 1.0
"""The most speech that one token covers."""


class Stretch(NamedTuple):
    """Seconds from the start of the utterance."""

    start: float
    end: float


Speech = Sequence[tuple[float, float]]
"""The stretches with detected speech, in order and disjoint."""


def spoken_seconds(speech: Speech, start: float, end: float) -> float:
    """The seconds of speech between two points."""
    return sum(max(0.0, min(end, until) - max(start, since)) for since, until in speech)


def may_be_uncovered(speech: Speech) -> bool:
    """Whether there is enough speech for some to be left out next to a single token."""
    return sum(until - since for since, until in speech) >= UNCOVERED_SECONDS + TOKEN_SECONDS


def uncovered(starts: Sequence[float], speech: Speech, seconds: float) -> Stretch | None:
    """The stretch with the most speech that is left out, if that is `UNCOVERED_SECONDS` or more.

    Args:
        starts: the start of each token of the text, and the end of the last one; empty if there is no text.
        speech: the detected speech.
        seconds: length of the utterance.
    """
    gaps = [Stretch(start + TOKEN_SECONDS, end) for start, end in pairwise(starts)]
    gaps.append(Stretch(starts[-1] if starts else 0.0, seconds))
    longest = max(gaps, key=lambda gap: spoken_seconds(speech, *gap))
    return longest if spoken_seconds(speech, *longest) >= UNCOVERED_SECONDS else None


def within(speech: Speech, start: float, end: float) -> tuple[tuple[float, float], ...]:
    """The speech between two points, in seconds from the first of them."""
    clipped = ((max(start, since) - start, min(end, until) - start) for since, until in speech)
    return tuple((since, until) for since, until in clipped if since < until)
