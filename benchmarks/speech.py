"""Speech for benchmarks: clips whose start, end and words are known, and tracks made of them."""

import csv
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000
SAMPLE = ROOT / "samples" / "sense-and-sensibility"
PAUSE_SECONDS = 1.0
"""Between the clips of a track, before the first and after the last."""
HOP = RATE // 100
QUIET_DECIBEL = 35
"""Sound that is at most so far below the loud parts of its recording counts as speech."""
SAMPLE_PAUSE_SECONDS = 0.3
MARGIN_SECONDS = 0.2
"""Around a sentence of the sample, as around an utterance in the service."""

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Clip:
    """A recorded utterance."""

    samples: Samples
    """Mono, 16 kHz."""
    text: str
    language: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


@dataclass(frozen=True)
class TrackUtterance:
    """An utterance in a track: its times and text."""

    start: float
    end: float
    """Seconds of the track."""
    text: str


@dataclass(frozen=True)
class Track:
    """The audio of one stream, and its utterances."""

    samples: Samples
    utterances: tuple[TrackUtterance, ...]
    language: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def clips(
    manifest: Path | None, language: str | None = None, shortest: float = 0.0, longest: float = 28.0
) -> list[Clip]:
    """The clips of a manifest, or the sentences of the sample recording where there is none.

    A manifest has the tab-separated columns file (in the same folder, 16 kHz mono), language and reference.
    """
    found = sample_clips() if manifest is None else manifest_clips(manifest)
    fitting = [clip for clip in found if shortest <= clip.seconds <= longest and language in (None, clip.language)]
    if not fitting:
        raise SystemExit("no clip fits")
    return fitting


def sample_clips() -> list[Clip]:
    samples, _ = soundfile.read(SAMPLE.with_suffix(".flac"), dtype="int16")
    lines = SAMPLE.with_suffix(".txt").read_text().splitlines()
    margin = int(MARGIN_SECONDS * RATE)
    spans = loud_spans(samples, SAMPLE_PAUSE_SECONDS)
    return [
        Clip(samples[max(0, start - margin) : end + margin], text, "en")
        for (start, end), text in zip(spans, lines, strict=True)
    ]


def manifest_clips(manifest: Path) -> list[Clip]:
    with manifest.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [Clip(read(manifest.parent / row["file"]), row["reference"], row["language"]) for row in rows]


def read(file: Path) -> Samples:
    samples, rate = soundfile.read(file, dtype="int16")
    if rate != RATE or samples.ndim != 1:
        raise SystemExit(f"{file.name} is not 16 kHz mono")
    return samples


def spread(found: Sequence[Clip], limit: int) -> list[Clip]:
    """At most `limit` clips, evenly from the whole list, so that every language has its share."""
    return list(found) if len(found) <= limit else [found[index * len(found) // limit] for index in range(limit)]


def track(found: Sequence[Clip], seconds: float, seed: int) -> Track:
    """Clips in random order with pauses between them, of at least `seconds`."""
    pause = np.zeros(int(PAUSE_SECONDS * RATE), np.int16)
    pieces, utterances, position = [pause], [], len(pause)
    for clip in itertools.cycle(random.Random(seed).sample(found, len(found))):
        start, end = whole_span(clip.samples)
        utterances.append(TrackUtterance((position + start) / RATE, (position + end) / RATE, clip.text))
        pieces += [clip.samples, pause]
        position += len(clip.samples) + len(pause)
        if position >= seconds * RATE:
            break
    return Track(np.concatenate(pieces), tuple(utterances), found[0].language)


def whole_span(samples: Samples) -> tuple[int, int]:
    """The start and end of speech, in samples."""
    spans = loud_spans(samples, len(samples) / RATE)
    return spans[0][0], spans[-1][1]


def loud_spans(samples: Samples, pause_seconds: float) -> list[tuple[int, int]]:
    """The stretches of speech, start and end in samples; pauses shorter than `pause_seconds` belong to them."""
    hops = samples[: len(samples) // HOP * HOP].astype(np.float64).reshape(-1, HOP)
    level = 10 * np.log10((hops**2).mean(axis=1) + 1e-9)
    loud = np.flatnonzero(level > np.percentile(level, 95) - QUIET_DECIBEL)
    breaks = np.flatnonzero(np.diff(loud) * HOP > pause_seconds * RATE)
    first = loud[np.concatenate([[0], breaks + 1])]
    last = loud[np.concatenate([breaks, [len(loud) - 1]])]
    return [(int(start) * HOP, int(end + 1) * HOP) for start, end in zip(first, last, strict=True)]
