"""Scores the text of a service against its reference: latency of each utterance, lost utterances, word error rate."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import jiwer
from speech import Track, TrackUtterance
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

LOST_SHARE = 0.5
"""An utterance is lost when fewer than this share of its words are received."""


@cache
def normalizer(language: str) -> BasicTextNormalizer | EnglishTextNormalizer:
    """Whisper's own normalizer, with which word error rates are commonly reported."""
    return EnglishTextNormalizer({}) if language == "en" else BasicTextNormalizer(remove_diacritics=True)


def words(text: str, language: str) -> list[str]:
    return normalizer(language)(text).split()


@dataclass(frozen=True)
class Errors:
    """Wrong, missing and extra words, and the words of the reference."""

    wrong: int = 0
    total: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.wrong + other.wrong, self.total + other.total)

    @property
    def rate(self) -> float:
        return self.wrong / self.total if self.total else float("nan")


def errors(reference: str, text: str, language: str) -> Errors:
    expected, found = words(reference, language), words(text, language)
    if not expected:  # only characters that the normalizer removes
        return Errors()
    output = _aligned(expected, found)
    return Errors(output.substitutions + output.deletions + output.insertions, len(expected))


def _aligned(expected: Sequence[str], found: Sequence[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(expected), " ".join(found))


def _common(one: Iterable[object], other: Iterable[object]) -> int:
    """The number of equal elements from the beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass
class ReceivedText:
    """The final text of one stream, as it arrived."""

    began: float = 0.0
    """When the first audio was spoken, in seconds of `time.monotonic`."""
    text: str = ""
    pieces: list[tuple[float, str]] = field(default_factory=list)
    """The pieces of the text, with their arrival in seconds since the stream began."""
    partials: list[tuple[float, float]] = field(default_factory=list)
    """The arrival of each partial, and the second of the stream at which its text begins."""
    news: int = 0
    """Messages that show that the service is still working."""
    refusal: str | None = None
    """Why the stream was not served to its end."""

    def add(self, at: float, text: str) -> None:
        """Appends text."""
        self.text += f" {text}"
        self.pieces.append((at, f" {text}"))

    def replace(self, at: float, text: str) -> None:
        """Replaces the whole text, for services that send all of it. Unchanged words keep their arrival."""
        kept = _common(self.text, text)
        if text[kept : kept + 1].strip() or kept < len(self.text):
            kept = text.rfind(" ", 0, kept) + 1
        excess = len(self.text) - kept
        while excess > 0:
            at_then, piece = self.pieces.pop()
            if len(piece) > excess:
                self.pieces.append((at_then, piece[:-excess]))
            excess -= len(piece)
        if len(text) > kept:
            self.pieces.append((at, text[kept:]))
        self.text = text

    def words(self, language: str) -> list[tuple[float, str]]:
        """Every word, with its arrival."""
        return [(at, word) for at, piece in self.pieces for word in words(piece, language)]


@dataclass(frozen=True)
class Verdict:
    """One stream, or several together."""

    latencies: tuple[float, ...] = ()
    """Seconds from each utterance's end to the last of its text."""
    first_partials: tuple[float, ...] = ()
    """Seconds from the start of each utterance to its first partial."""
    partials: int = 0
    """The number of partials."""
    lost: int = 0
    utterances: int = 0
    errors: Errors = Errors()

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.latencies + other.latencies,
            self.first_partials + other.first_partials,
            self.partials + other.partials,
            self.lost + other.lost,
            self.utterances + other.utterances,
            self.errors + other.errors,
        )


def judge(track: Track, received: ReceivedText, speed: float = 1.0) -> Verdict:
    """Compares a stream's text with its track, which was sent at `speed` times real time."""
    return sum(judge_each(track, received, speed), Verdict())


def judge_each(track: Track, received: ReceivedText, speed: float = 1.0) -> list[Verdict]:
    """The same, utterance by utterance.

    Services report the times of a text in different ways, and some wrongly: the arrival of each word is found by
    aligning all words of the reference with all received ones. An extra word counts for the utterance after it.
    """
    expected = [words(utterance.text, track.language) for utterance in track.utterances]
    found = received.words(track.language)
    output = _aligned(list(itertools.chain.from_iterable(expected)), [word for _, word in found])
    arrivals: dict[int, float] = {}
    """By word of the reference."""
    wrong: Counter[int] = Counter()
    for chunk in output.alignments[0]:
        spoken = range(chunk.ref_start_idx, chunk.ref_end_idx)
        if chunk.type == "equal":
            times = (at for at, _ in found[chunk.hyp_start_idx : chunk.hyp_end_idx])
            arrivals |= zip(spoken, times, strict=True)
        elif chunk.type == "insert":
            wrong[chunk.ref_start_idx] += chunk.hyp_end_idx - chunk.hyp_start_idx
        else:
            wrong.update(spoken)
    partials = _partials(track.utterances, received.partials, speed)
    verdicts, position = [], 0
    for number, utterance in enumerate(track.utterances):
        last = number == len(expected) - 1
        mine = range(position, position + len(expected[number]))
        position = mine.stop
        hits = [arrivals[index] for index in mine if index in arrivals]
        lost = len(hits) < LOST_SHARE * len(mine)
        verdicts.append(
            Verdict(
                latencies=(max(hits) - utterance.end / speed,) if hits and not lost else (),
                first_partials=tuple(partials[number][:1]),
                partials=len(partials[number]),
                lost=int(lost),
                utterances=1,
                errors=Errors(sum(wrong[index] for index in range(mine.start, mine.stop + last)), len(mine)),
            )
        )
    return verdicts


def _partials(
    utterances: Sequence[TrackUtterance], partials: Sequence[tuple[float, float]], speed: float
) -> list[list[float]]:
    """The arrival of the partials of each utterance, in seconds since it began.

    A partial that begins up to half a second before an utterance belongs to it: services add a margin.
    """
    return [
        [at - utterance.start / speed for at, start in partials if utterance.start - 0.5 <= start < utterance.end]
        for utterance in utterances
    ]
