"""What becomes of an utterance that the model does not get through: its parts, and one text of theirs. Pure.

Whisper's own procedure goes on from the last timestamp. That is one case of two: where speech is left out before the
end of the text, or the model repeats itself, the whole utterance is divided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.inference.decoding.coverage import Speech, within
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.words import UNSPACED
from server.inference.whisper.features import SAMPLE_RATE
from server.inference.whisper.special_tokens import SECONDS_PER_STAMP

DEPTH: Final = 2
"""A part is divided once more at most: of one utterance there are six parts, and each is tried twice."""
LEAST_SECONDS: Final = 3.0
"""What is shorter is not divided: the model makes less of words than of sentences."""
_MIDDLE: Final = (0.3, 0.7)
"""Of an utterance, where a quiet point to divide it at is looked for..."""
_AROUND_SECONDS: Final = 0.3
"""...and so far around the point at which its text ends."""
_HOP: Final = SAMPLE_RATE // 100
_QUIET_HOPS: Final = 10
_END_SECONDS: Final = 0.5
"""Speech that is left out up to so little before the last of it is left out at the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an utterance as an utterance of its own."""

    utterance: UtteranceAudio
    offset: float
    """Seconds from the start of the whole."""


@dataclass(frozen=True, slots=True)
class Division:
    """What is to be transcribed in place of an utterance."""

    keeps_text: bool
    """Whether what was written of the whole stands: the parts come after it."""
    parts: tuple[Part, ...]


def divided(utterance: UtteranceAudio, hypothesis: Hypothesis, first_stamp: int) -> Division | None:
    """How to go on where the full window's hypothesis is `incomplete`; None if nothing is left to try.

    If all that is missing comes after the text, that is done alone. Otherwise the audio is divided at the quietest
    point in its middle.

    Args:
        first_stamp: the token of the timestamp 0.
    """
    seconds = len(utterance.samples) / SAMPLE_RATE
    reason = hypothesis.incomplete
    if reason is None or seconds < LEAST_SECONDS:
        return None
    # The parts are in the language of the whole, whose final has one.
    utterance = replace(utterance, language=hypothesis.language)
    if (said_until := _said_until(hypothesis, utterance.options.speech, first_stamp)) is not None:
        rest = _quiet_point(utterance.samples, said_until - _AROUND_SECONDS, said_until + _AROUND_SECONDS)
        return Division(True, (_part(utterance, rest, seconds),))
    middle = _quiet_point(utterance.samples, *(share * seconds for share in _MIDDLE))
    return Division(False, (_part(utterance, 0.0, middle), _part(utterance, middle, seconds)))


def joined(whole: Hypothesis, division: Division, found: Sequence[Hypothesis], first_stamp: int) -> Hypothesis:
    """One hypothesis of the whole and of what was made of its parts, without what is not believed.

    It is the whole's if the parts have no more text: then the whole is the better one for having heard it all at once.

    Args:
        first_stamp: the token of the timestamp 0.
    """
    believed = [
        (part.offset, each)
        for part, each in zip(division.parts, found, strict=True)
        if each.text and each.invented is None
    ]
    if division.keeps_text and whole.invented is None:
        believed.insert(0, (0.0, whole))
    texts = [each for _, each in believed]
    tokens = tuple(chain.from_iterable(each.tokens for each in texts))
    if not believed or (whole.invented is None and len(tokens) <= len(whole.tokens)):
        return whole
    return replace(
        whole,
        text=("" if whole.language in UNSPACED else " ").join(each.text for each in texts),
        tokens=tokens,
        log_probabilities=tuple(chain.from_iterable(each.log_probabilities for each in texts)),
        ending=texts[-1].ending,
        unheard_seconds=0.0,
        uncovered=None,
        certain=texts[0].certain,
        written=tuple(chain.from_iterable(_later(each.written, offset, first_stamp) for offset, each in believed)),
        words=tuple(
            replace(word, start=word.start + offset, end=word.end + offset)
            for offset, each in believed
            for word in each.words
        ),
    )


def _said_until(hypothesis: Hypothesis, speech: Speech | None, first_stamp: int) -> float | None:
    """Where the text ends, in seconds, if it stands and nothing is left out but what comes after it."""
    if not hypothesis.tokens or hypothesis.invented:
        return None
    last_speech = speech[-1][1] if speech else hypothesis.seconds
    match hypothesis.incomplete:
        case "coverage" if hypothesis.uncovered and hypothesis.uncovered.end >= last_speech - _END_SECONDS:
            return hypothesis.uncovered.start
        case "early":
            return (hypothesis.written[-1] - first_stamp) * SECONDS_PER_STAMP
    return None


def _part(utterance: UtteranceAudio, start: float, end: float) -> Part:
    samples = utterance.samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    speech = utterance.options.speech
    options = replace(utterance.options, speech=None if speech is None else within(speech, start, end))
    return Part(replace(utterance, samples=samples, options=options), start)


def _quiet_point(samples: NDArray[np.float32], start: float, end: float) -> float:
    """The quietest moment between two points, in seconds."""
    first = max(0, round(start * SAMPLE_RATE))
    hops = (min(len(samples), round(end * SAMPLE_RATE)) - first) // _HOP
    powers = np.square(samples[first : first + hops * _HOP].reshape(hops, _HOP)).mean(axis=1)
    quiet = np.convolve(powers, np.ones(min(_QUIET_HOPS, hops)), mode="same")
    return (first + (int(quiet.argmin()) + 0.5) * _HOP) / SAMPLE_RATE


def _later(written: Sequence[int], offset: float, first_stamp: int) -> list[int]:
    """The tokens with their stamps on the time of the whole."""
    step = round(offset / SECONDS_PER_STAMP)
    return [token + step if token >= first_stamp else token for token in written]
