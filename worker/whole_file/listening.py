"""Listens to a whole recording once: where it has speech, and in which language."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from server.audio.decoder import MODEL_RATE, Samples
from server.vad.silero import SileroVad
from worker.whole_file.plan import Plan, in_passages
from worker.whole_file.segmentation import DEFAULT_OPTIONS, SegmentationOptions, SpokenSegment, segments
from worker.whole_file.speech_track import SpeechTrack

READ_SECONDS: Final = 30
"""Audio in memory at a time."""
LANGUAGE_SECONDS: Final = 10.0
"""How much of a segment its language is detected from: ten seconds of speech are enough, for a third of the work."""
LANGUAGE_SAMPLES: Final = 20
"""The most segments whose language is detected, spread over the recording..."""
SPEECH_FOR_A_SAMPLE: Final = 30.0
"""...and the seconds of speech for each of them: a short recording needs fewer..."""
LEAST_SAMPLES: Final = 3
AGREEMENT: Final = 0.95
"""The share of them that has to be in one language for all of the recording to be in it."""


class Audio(Protocol):
    """A recording, as this thread reads it."""

    @property
    def length(self) -> int:
        """Samples at 16 kHz."""
        ...

    def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`, mono 32-bit float at 16 kHz; shape [n]."""
        ...


LanguageChances = Callable[[Samples], Mapping[str, float]]
"""The probability of each language; empty for a model of English only."""


@dataclass(frozen=True, slots=True)
class FoundLanguage:
    """The language of a recording."""

    language: str
    """ISO 639-1."""
    probability: float
    is_certain: bool
    """Whether all of the recording is in it."""


def listen(
    audio: Audio,
    vad: SileroVad,
    chances: LanguageChances,
    language: str | None = None,
    options: SegmentationOptions = DEFAULT_OPTIONS,
) -> Plan:
    """The plan of a recording. Memory holds 30 s of audio, and eight bytes for every 32 ms of the recording.

    Args:
        audio: the recording.
        vad: the detector.
        chances: detects the language of ten seconds.
        language: ISO 639-1, or None to have it detected.
        options: what counts as speech.
    """
    track = SpeechTrack(vad)
    for start in range(0, audio.length, READ_SECONDS * MODEL_RATE):
        track.push(audio.read(start, min(audio.length, start + READ_SECONDS * MODEL_RATE)))
    track.finish()
    found = segments(track.probabilities, track.powers, track.samples, options)
    if language is not None:
        spoken = FoundLanguage(language, 1.0, is_certain=True)
    else:
        spoken = detected([chances(audio.read(first, last)) for first, last in language_spans(found)])
    return Plan(track.samples, spoken.language, spoken.probability, spoken.is_certain, in_passages(found))


def language_spans(found: Sequence[SpokenSegment]) -> list[tuple[int, int]]:
    """What to detect the language from, in samples from the start of the recording, in order.

    These are the beginnings of the longest segment in each of up to twenty parts of the recording with as many segments
    each: a word or two is weak evidence.
    """
    speech = sum(end - start for segment in found for start, end in segment.speech) / MODEL_RATE
    wanted = min(LANGUAGE_SAMPLES, max(LEAST_SAMPLES, math.ceil(speech / SPEECH_FOR_A_SAMPLE)), len(found))
    spans = []
    for part in range(wanted):
        of_part = found[part * len(found) // wanted : (part + 1) * len(found) // wanted]
        longest = max(of_part, key=lambda segment: segment.end - segment.start)
        spans.append((longest.start, min(longest.end, longest.start + int(LANGUAGE_SECONDS * MODEL_RATE))))
    return spans


def detected(samples: Iterable[Mapping[str, float]]) -> FoundLanguage:
    """The language with the highest sum of log probabilities over the samples.

    Its probability is that of the mean, so that it does not depend on the number of samples. English, without
    certainty, if there are none.
    """
    chances = [each for each in samples if each]
    if not chances:
        return FoundLanguage("en", 0.0, is_certain=False)
    means = {
        language: sum(math.log(max(each[language], 1e-9)) for each in chances) / len(chances) for language in chances[0]
    }
    likeliest = max(means, key=means.__getitem__)
    probability = math.exp(means[likeliest]) / sum(map(math.exp, means.values()))
    agreeing = sum(max(each, key=each.__getitem__) == likeliest for each in chances)
    return FoundLanguage(likeliest, probability, agreeing >= AGREEMENT * len(chances))
