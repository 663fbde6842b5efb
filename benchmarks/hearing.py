"""What was heard of what was said: how late each utterance's text was, how much is lost, and the word error rate."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import jiwer
from speech import Track, UtteranceAudio
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

LOST_SHARE = 0.5
"""An utterance is lost when fewer of its words than this share are heard."""


@cache
def normalizer(language: str) -> BasicTextNormalizer | EnglishTextNormalizer:
    """Whisper's own, with which word error rates are commonly given."""
    return EnglishTextNormalizer({}) if language == "en" else BasicTextNormalizer(remove_diacritics=True)


def words(text: str, language: str) -> list[str]:
    return normalizer(language)(text).split()


@dataclass(frozen=True)
class Errors:
    """Words that are wrong, missing or too many, of those that were said."""

    wrong: int = 0
    said: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(self.wrong + other.wrong, self.said + other.said)

    @property
    def rate(self) -> float:
        return self.wrong / self.said if self.said else float("nan")


def errors(reference: str, heard: str, language: str) -> Errors:
    said, found = words(reference, language), words(heard, language)
    if not said:  # nothing but signs that the normalizer takes away
        return Errors()
    output = _aligned(said, found)
    return Errors(output.substitutions + output.deletions + output.insertions, len(said))


def _aligned(said: Sequence[str], found: Sequence[str]) -> jiwer.WordOutput:
    return jiwer.process_words(" ".join(said), " ".join(found))


def _common(one: Iterable[object], other: Iterable[object]) -> int:
    """How many elements are the same from the beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@dataclass
class Heard:
    """The text that a service committed itself to for one stream, as it came."""

    text: str = ""
    pieces: list[tuple[float, str]] = field(default_factory=list)
    """What the text is made of: when each piece came, in seconds since the stream began."""
    partials: list[tuple[float, float]] = field(default_factory=list)
    """When an interim text came, and from which second of the stream it tells."""
    news: int = 0
    """Messages from which more is to be expected."""
    refusal: str | None = None
    """Why the service did not serve the stream to its end."""

    def add(self, at: float, text: str) -> None:
        """More text."""
        self.text += f" {text}"
        self.pieces.append((at, f" {text}"))

    def replace(self, at: float, text: str) -> None:
        """All text by now, from services that send it whole. Words that stay as they were keep their time."""
        kept = _common(self.text, text)
        if text[kept : kept + 1].strip() or kept < len(self.text):
            kept = text.rfind(" ", 0, kept) + 1
        reconciliation = len(self.text) - kept
        while reconciliation > 0:
            at_then, piece = self.pieces.pop()
            if len(piece) > reconciliation:
                self.pieces.append((at_then, piece[:-reconciliation]))
            reconciliation -= len(piece)
        if len(text) > kept:
            self.pieces.append((at, text[kept:]))
        self.text = text

    def words(self, language: str) -> list[tuple[float, str]]:
        """Every word, with when it came."""
        return [(at, word) for at, piece in self.pieces for word in words(piece, language)]


@dataclass(frozen=True)
class Verdict:
    """One stream, or several together."""

    latencies: tuple[float, ...] = ()
    """Seconds from each utterance's end to the last of its text."""
    first_partials: tuple[float, ...] = ()
    """Seconds from each utterance's begin to the first interim text of it."""
    partials: int = 0
    """Interim texts."""
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


def judge(track: Track, heard: Heard, speed: float = 1.0) -> Verdict:
    """Compares a stream's text with its track, which was sent at `speed` times the pace of speech."""
    return sum(judge_each(track, heard, speed), Verdict())


def judge_each(track: Track, heard: Heard, speed: float = 1.0) -> list[Verdict]:
    """The same, utterance by utterance.

    Services tell the times of a text in different ways, and some wrongly: whose words came when is found by aligning
    all words that were said with all that were heard. A word too many counts with what was said after it.
    """
    said = [words(utterance.text, track.language) for utterance in track.utterances]
    found = heard.words(track.language)
    output = _aligned(list(itertools.chain.from_iterable(said)), [word for _, word in found])
    arrivals: dict[int, float] = {}
    """By word that was said."""
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
    partials = _partials(track.utterances, heard.partials, speed)
    verdicts, position = [], 0
    for number, utterance in enumerate(track.utterances):
        last = number == len(said) - 1
        mine = range(position, position + len(said[number]))
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
    utterances: Sequence[UtteranceAudio], partials: Sequence[tuple[float, float]], speed: float
) -> list[list[float]]:
    """When those of each utterance came, in seconds since it began.

    What begins up to half a second before an utterance tells of it: services begin with a margin.
    """
    return [
        [at - utterance.start / speed for at, start in partials if utterance.start - 0.5 <= start < utterance.end]
        for utterance in utterances
    ]
