"""Compares a new transcript with the live one (version 1) over the same audio, before it becomes the current one. Pure.

A new transcript that is much worse must not replace a good one unseen: it is stored as doubtful, with a reason in plain
English, and the live one stays current.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from domain.transcript import Utterance
from server.inference.decoding.words import UNSPACED

Outcome = Literal["accepted", "doubtful", "no_speech"]
"""The transcript may become current; it is stored and does not; it is empty although the live one has text."""
Defect = Literal["few_words", "speech_without_words", "ends_early", "repetitive", "language", "no_speech"]
"""The rule that a transcript did not meet, for metrics."""

_PHRASE: Final = 5
"""Words of a phrase that counts as repeated."""
_PAUSE_SECONDS: Final = 2.0
"""Speech in a shorter gap between two words counts as covered by them."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """From where on a transcript is doubtful."""

    words: float = 0.6
    """The least words, as a share of those of the live transcript."""
    without_words: float = 0.1
    """The most speech without words, as a share of all speech."""
    end_seconds: float = 30.0
    """How much earlier than that of the live transcript the last word may end."""
    repeated: float = 0.05
    """The most repeated phrases of five words, as a share of all phrases, above the share of the live transcript:
    people who read lists repeat themselves."""
    language: float = 0.9
    """The least probability of a language that is not the one of the session."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the comparison."""

    outcome: Outcome
    reason: str = ""
    """One sentence in plain English; empty if the transcript is accepted."""
    defect: Defect | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What is known of the audio of both transcripts."""

    speech: Sequence[tuple[float, float]]
    """The stretches with detected speech, in seconds, in order and disjoint."""
    language: str
    """ISO 639-1, of the new transcript."""
    language_probability: float
    """1 where the language was requested."""


def compare(
    new: Sequence[Utterance],
    live: Sequence[Utterance],
    recording: Recording,
    session_language: str | None = None,
    limits: GuardLimits = GuardLimits(),
) -> Verdict:
    """Whether a new transcript may replace the live one.

    Args:
        new: the new transcript, in order, with timed words.
        live: version 1; empty where there is none, as for an uploaded file.
        recording: the audio of both.
        session_language: the language of version 1, ISO 639-1; None or "auto" if it is unknown.
        limits: from where on a transcript is doubtful.
    """
    new_words, live_words = _words(new), _words(live)
    if not new_words:
        if live_words:
            return _verdict(
                "no_speech", f"The new transcript is empty, and the live one has {_count(live_words, 'word')}."
            )
        return Verdict("accepted")
    if len(new_words) < limits.words * len(live_words):
        return _verdict(
            "few_words",
            f"The new transcript has {_count(new_words, 'word')}, and the live one has {len(live_words)}.",
        )
    without, spoken = _speech_without_words(new, live, recording.speech)
    if without > limits.without_words * spoken:
        return _verdict(
            "speech_without_words",
            f"The new transcript has no words for {without:.0f} of {spoken:.0f} seconds of speech.",
        )
    earlier = _end(live) - _end(new)
    if earlier > limits.end_seconds:
        return _verdict("ends_early", f"The new transcript ends {earlier:.0f} seconds before the live one does.")
    repeated = _repeated(new_words)
    if repeated > limits.repeated + _repeated(live_words):
        return _verdict("repetitive", f"The new transcript repeats {100 * repeated:.0f} % of its phrases.")
    known = session_language not in (None, "auto", recording.language)
    if known and recording.language_probability < limits.language:
        return _verdict(
            "language",
            f"The new transcript is in the language {recording.language!r} with a probability of "
            f"{recording.language_probability:.2f}, and the session was in {session_language!r}.",
        )
    return Verdict("accepted")


def _verdict(defect: Defect, reason: str) -> Verdict:
    return Verdict("no_speech" if defect == "no_speech" else "doubtful", reason, defect)


def _count(words: Sequence[str], noun: str) -> str:
    return f"{len(words)} {noun}" if len(words) == 1 else f"{len(words)} {noun}s"


def _words(utterances: Sequence[Utterance]) -> list[str]:
    """All words without punctuation and case; in a language without spaces between words, all characters."""
    found: list[str] = []
    for utterance in utterances:
        pattern = r"\w" if utterance.language in UNSPACED else r"\w+"
        found += re.findall(pattern, utterance.text.casefold())
    return found


def _end(utterances: Sequence[Utterance]) -> float:
    """Where the last word ends."""
    return max((spans[-1][1] for each in utterances if (spans := _spans(each))), default=0.0)


def _spans(utterance: Utterance) -> list[tuple[float, float]]:
    """Where an utterance has text: its words, or all of it where they are not timed."""
    if utterance.words:
        return [(word.start, word.end) for word in utterance.words]
    return [(utterance.start, utterance.end)] if utterance.text.strip() else []


def _speech_without_words(
    new: Sequence[Utterance], live: Sequence[Utterance], speech: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Seconds of speech for which the new transcript has no words and the live one has text, and all of the speech.

    The detector takes some music and noise for speech: it counts only where the live transcript has text, too, if there
    is one.
    """
    spoken = sum(end - start for start, end in speech)
    gaps = _gaps([span for each in new for span in _spans(each)])
    missing = _overlap(gaps, speech)
    if live:
        missing = _overlap(missing, sorted((each.start, each.end) for each in live if each.text.strip()))
    return sum(end - start for start, end in missing), spoken


def _gaps(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What lies before, between and after the spans, if it is longer than a pause."""
    gaps, until = [], 0.0
    for start, end in [*sorted(spans), (float("inf"), float("inf"))]:
        if start - until > _PAUSE_SECONDS:
            gaps.append((until, start))
        until = max(until, end)
    return gaps


def _overlap(some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The stretches that lie in both, each of which is in order."""
    both, position = [], 0
    for start, end in some:
        while position < len(others) and others[position][1] <= start:
            position += 1
        at = position
        while at < len(others) and others[at][0] < end:
            both.append((max(start, others[at][0]), min(end, others[at][1])))
            at += 1
    return [(start, end) for start, end in both if start < end]


def _repeated(words: Sequence[str]) -> float:
    """The share of phrases that occurred before."""
    phrases = [tuple(words[index : index + _PHRASE]) for index in range(len(words) - _PHRASE + 1)]
    return 1 - len(set(phrases)) / len(phrases) if phrases else 0.0
