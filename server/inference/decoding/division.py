"""Division of an utterance whose text is incomplete: its parts, and the joined text. Pure.

Whisper's own procedure continues from the last timestamp. That is one of two cases: if speech is left out before the
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
from server.inference.whisper.special_tokens import SECONDS_PER_TIMESTAMP

DEPTH: Final = 2
"""A part is divided once more at most: one utterance has at most six parts, and each is attempted twice."""
MIN_SECONDS: Final = 3.0
"""A shorter utterance is not divided: the model is worse at words than at sentences."""
_MIDDLE: Final = (0.3, 0.7)
"""The range of an utterance that is searched for a quiet point to divide it at..."""
_AROUND_SECONDS: Final = 0.3
"""...and the distance from the end of its text that is searched."""
_HOP: Final = SAMPLE_RATE // 100
_QUIET_HOPS: Final = 10
_END_SECONDS: Final = 0.5
"""Speech that is left out to within so much of the last speech counts as left out at the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an utterance, transcribed as its own utterance."""

    utterance: UtteranceAudio
    offset: float
    """Seconds from the start of the whole."""


@dataclass(frozen=True, slots=True)
class Division:
    """The parts to transcribe in place of an utterance."""

    keeps_text: bool
    """Whether the text of the whole is kept: the parts follow it."""
    parts: tuple[Part, ...]


def divided(utterance: UtteranceAudio, hypothesis: Hypothesis, first_timestamp: int) -> Division | None:
    """The division of an utterance whose hypothesis with the full window is `incomplete`; None if it is not divided.

    If only speech after the text is missing, the rest is transcribed alone. Otherwise the audio is divided at the
    quietest point in its middle.

    Args:
        first_timestamp: the token of the timestamp 0.
    """
    seconds = len(utterance.samples) / SAMPLE_RATE
    reason = hypothesis.incomplete
    if reason is None or seconds < MIN_SECONDS:
        return None
    # The parts use the language of the whole, because a final has one language.
    utterance = replace(utterance, language=hypothesis.language)
    if (text_end := _text_end(hypothesis, utterance.options.speech, first_timestamp)) is not None:
        rest = _quiet_point(utterance.samples, text_end - _AROUND_SECONDS, text_end + _AROUND_SECONDS)
        return Division(True, (_part(utterance, rest, seconds),))
    middle = _quiet_point(utterance.samples, *(share * seconds for share in _MIDDLE))
    return Division(False, (_part(utterance, 0.0, middle), _part(utterance, middle, seconds)))


def joined(whole: Hypothesis, division: Division, found: Sequence[Hypothesis], first_timestamp: int) -> Hypothesis:
    """One hypothesis from the whole and its parts, without suppressed texts.

    It is that of the whole if the parts have no more text: then the whole is better, because it has all the context.

    Args:
        first_timestamp: the token of the timestamp 0.
    """
    accepted = [
        (part.offset, each)
        for part, each in zip(division.parts, found, strict=True)
        if each.text and each.invented is None
    ]
    if division.keeps_text and whole.invented is None:
        accepted.insert(0, (0.0, whole))
    texts = [each for _, each in accepted]
    tokens = tuple(chain.from_iterable(each.tokens for each in texts))
    if not accepted or (whole.invented is None and len(tokens) <= len(whole.tokens)):
        return whole
    return replace(
        whole,
        text=("" if whole.language in UNSPACED else " ").join(each.text for each in texts),
        tokens=tokens,
        log_probabilities=tuple(chain.from_iterable(each.log_probabilities for each in texts)),
        ending=texts[-1].ending,
        seconds_after_last_timestamp=0.0,
        uncovered=None,
        certain_prefix=texts[0].certain_prefix,
        decoded_tokens=tuple(
            chain.from_iterable(_moved(each.decoded_tokens, offset, first_timestamp) for offset, each in accepted)
        ),
        words=tuple(
            replace(word, start=word.start + offset, end=word.end + offset)
            for offset, each in accepted
            for word in each.words
        ),
    )


def _text_end(hypothesis: Hypothesis, speech: Speech | None, first_timestamp: int) -> float | None:
    """Where the text ends, in seconds, if it is not suppressed and only speech after it is left out."""
    if not hypothesis.tokens or hypothesis.invented:
        return None
    last_speech = speech[-1][1] if speech else hypothesis.seconds
    match hypothesis.incomplete:
        case "coverage" if hypothesis.uncovered and hypothesis.uncovered.end >= last_speech - _END_SECONDS:
            return hypothesis.uncovered.start
        case "early":
            return (hypothesis.decoded_tokens[-1] - first_timestamp) * SECONDS_PER_TIMESTAMP
    return None


def _part(utterance: UtteranceAudio, start: float, end: float) -> Part:
    samples = utterance.samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    speech = utterance.options.speech
    options = replace(utterance.options, speech=None if speech is None else within(speech, start, end))
    return Part(replace(utterance, samples=samples, options=options), start)


def _quiet_point(samples: NDArray[np.float32], start: float, end: float) -> float:
    """The quietest point between two points, in seconds."""
    first = max(0, round(start * SAMPLE_RATE))
    hops = (min(len(samples), round(end * SAMPLE_RATE)) - first) // _HOP
    powers = np.square(samples[first : first + hops * _HOP].reshape(hops, _HOP)).mean(axis=1)
    quiet = np.convolve(powers, np.ones(min(_QUIET_HOPS, hops)), mode="same")
    return (first + (int(quiet.argmin()) + 0.5) * _HOP) / SAMPLE_RATE


def _moved(tokens: Sequence[int], offset: float, first_timestamp: int) -> list[int]:
    """The tokens, with timestamps from the start of the whole."""
    step = round(offset / SECONDS_PER_TIMESTAMP)
    return [token + step if token >= first_timestamp else token for token in tokens]
