"""What listening to a whole recording found: its language and its segments, in passages. Pure.

A plan is everything that recognition needs besides the audio, so a process that continues the work of another one does
not listen again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from server.vad.silero import WINDOW_SAMPLES
from worker.whole_file.segmentation import SpokenSegment

SAMPLE_RATE: Final = 16_000
PASSAGE_SECONDS: Final = 60.0
"""The longest passage with several segments."""
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive segments that are recognised together, and stored together."""

    segments: tuple[SpokenSegment, ...]
    """At least one, in order."""

    @property
    def start(self) -> int:
        """Its first sample, from the start of the recording."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """The end of its last sample."""
        return self.segments[-1].end


@dataclass(frozen=True, slots=True)
class Plan:
    """The language of a recording, and its passages."""

    samples: int
    """Length of the recording."""
    language: str
    """ISO 639-1: the language that was requested, or that of most of the speech."""
    language_probability: float
    """The model's, over all of the speech that was examined; 1 where the language was requested."""
    is_language_certain: bool
    """Whether all of the recording is in this language; otherwise it is the expected one, and each segment may have
    another."""
    passages: tuple[Passage, ...]
    """In order and disjoint; empty for a recording without speech."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.samples / SAMPLE_RATE

    @property
    def ends(self) -> list[float]:
        """Where each passage ends, in seconds: so much of the recording is done once it is recognised."""
        return [passage.end / SAMPLE_RATE for passage in self.passages]

    @property
    def speech(self) -> list[tuple[float, float]]:
        """The stretches with detected speech, in seconds, in order and disjoint."""
        return [
            (start / SAMPLE_RATE, end / SAMPLE_RATE)
            for passage in self.passages
            for segment in passage.segments
            for start, end in segment.speech
        ]

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON: about 20 bytes for each segment, and 8 for each stretch of speech in it."""
        return {
            "format": _FORMAT,
            "samples": self.samples,
            "language": self.language,
            "language_probability": self.language_probability,
            "is_language_certain": self.is_language_certain,
            "passages": [[_written(segment) for segment in passage.segments] for passage in self.passages],
        }

    @classmethod
    def from_json(cls, shape: Any) -> Self:
        """The plan of `to_json`.

        Raises:
            ValueError: it is not a plan of this version; the recording has to be listened to again.
        """
        try:
            if shape["format"] != _FORMAT:
                raise ValueError(f"a plan of the format {shape['format']!r}, not {_FORMAT}")
            return cls(
                samples=int(shape["samples"]),
                language=str(shape["language"]),
                language_probability=float(shape["language_probability"]),
                is_language_certain=bool(shape["is_language_certain"]),
                passages=tuple(Passage(tuple(map(_read, segments))) for segments in shape["passages"]),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError("not a plan") from error


def in_passages(segments: Iterable[SpokenSegment], longest_seconds: float = PASSAGE_SECONDS) -> tuple[Passage, ...]:
    """Groups consecutive segments into passages of at most `longest_seconds`, from the first sample to the last."""
    passages: list[list[SpokenSegment]] = []
    for segment in segments:
        if passages and segment.end - passages[-1][0].start <= longest_seconds * SAMPLE_RATE:
            passages[-1].append(segment)
        else:
            passages.append([segment])
    return tuple(Passage(tuple(each)) for each in passages)


def _written(segment: SpokenSegment) -> list[int]:
    """Start and length, then the lengths of silence and speech in turn, in samples; whole windows are negative."""
    numbers = [segment.start, segment.end - segment.start]
    position = segment.start
    for start, end in segment.speech:
        numbers += [start - position, end - start]
        position = end
    return [-(number // WINDOW_SAMPLES) if number and not number % WINDOW_SAMPLES else number for number in numbers]


def _read(numbers: Sequence[int]) -> SpokenSegment:
    start, length, *rest = (-number * WINDOW_SAMPLES if number < 0 else number for number in numbers)
    position, speech = start, []
    for silence, spoken in zip(rest[::2], rest[1::2], strict=True):
        speech.append((position + silence, position + silence + spoken))
        position += silence + spoken
    return SpokenSegment(start, start + length, tuple(speech))
