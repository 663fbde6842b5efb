"""Cuts a whole recording into segments to transcribe, from the probability of speech of all its windows. Pure.

Unlike the segmenter of a live stream it knows what comes after: it chooses all cuts of a long stretch together, and
searches for quiet speech where it has found none otherwise.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.vad.silero import WINDOW_SAMPLES

_SAMPLE_RATE: Final = 16_000
_WINDOWS_PER_SECOND: Final = _SAMPLE_RATE / WINDOW_SAMPLES
_PAUSE_WINDOWS: Final = 9
"""The level at a point is the mean of this many windows around it, 0.3 s: a pause between sentences is longer than one
within a sentence, and than the closure of a plosive."""
_SILENCE: Final = 1e-8
"""Power of -80 dB: silence does not get quieter."""
_COST_OF_A_CUT: Final = 20.0
"""In decibels."""


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """What counts as speech, and how long a segment may be. The defaults are those of live sessions."""

    threshold: float = 0.5
    """Probability from which a window counts as speech."""
    hysteresis: float = 0.15
    """Speech continues until the probability is this far below the threshold."""
    min_speech_seconds: float = 0.25
    min_silence_seconds: float = 0.5
    pad_seconds: float = 0.2
    """Margin on both sides of a segment."""
    longest_seconds: float = 28.0
    """Whisper's window is 30 s; the rest is room for the silence around a segment."""
    shortest_piece_seconds: float = 5.0
    """Of the pieces into which a longer stretch is cut: the model is worse at words than at sentences."""
    quiet_threshold: float = 0.25
    """Probability from which a window counts as speech in the second look..."""
    empty_seconds: float = 30.0
    """...at stretches of at least this length in which the first found nothing."""


DEFAULT_OPTIONS: Final = SegmentationOptions()


@dataclass(frozen=True, slots=True)
class SpokenSegment:
    """A stretch of the recording to transcribe, in samples from its start; `end` is excluded."""

    start: int
    end: int
    speech: tuple[tuple[int, int], ...] = ()
    """The stretches with detected speech, in samples from the start of the recording, in order and disjoint."""


_Run = tuple[int, int]
"""A stretch of windows with speech; the second is excluded."""


def segments(
    probabilities: NDArray[np.float32],
    powers: NDArray[np.float32],
    samples: int,
    options: SegmentationOptions = DEFAULT_OPTIONS,
) -> list[SpokenSegment]:
    """The segments of a recording, in order and disjoint.

    Args:
        probabilities: of speech, one for each window of 512 samples.
        powers: mean square of the samples of each window.
        samples: length of the recording; the last window may reach beyond it.
    """
    found = _groups(probabilities.tolist(), options.threshold, options)
    found = sorted(chain(found, _quiet_groups(found, probabilities, options)))
    pad = round(options.pad_seconds * _SAMPLE_RATE)
    spans = _padded([(runs[0][0], runs[-1][1]) for runs in found], pad, samples)
    cut = []
    for runs, (start, end) in zip(found, spans, strict=True):
        borders = [start, *_cuts(powers, runs, options), end]
        cut += [_segment(runs, first, last) for first, last in pairwise(borders)]
    return [segment for segment in cut if segment.speech]


def _groups(probabilities: Sequence[float], threshold: float, options: SegmentationOptions) -> list[list[_Run]]:
    """The stretches of speech, grouped: a silence of `min_silence_seconds` or more is between two groups.

    A group that is shorter than `min_speech_seconds` was noise, and is left out.
    """
    release = max(threshold - options.hysteresis, threshold / 2)
    min_silence = options.min_silence_seconds * _WINDOWS_PER_SECOND
    found: list[list[_Run]] = []
    runs: list[_Run] = []
    for index, probability in enumerate(probabilities):
        if runs and index - runs[-1][1] >= min_silence:
            found.append(runs)
            runs = []
        if probability >= (release if runs else threshold):
            if runs and runs[-1][1] == index:
                runs[-1] = (runs[-1][0], index + 1)
            else:
                runs.append((index, index + 1))
    if runs:
        found.append(runs)
    min_speech = options.min_speech_seconds * _WINDOWS_PER_SECOND
    return [runs for runs in found if runs[-1][1] - runs[0][0] >= min_speech]


def _quiet_groups(
    found: Sequence[Sequence[_Run]], probabilities: NDArray[np.float32], options: SegmentationOptions
) -> list[list[_Run]]:
    """What a lower threshold finds in the long stretches without speech."""
    borders = [0, *chain.from_iterable((runs[0][0], runs[-1][1]) for runs in found), len(probabilities)]
    least = options.empty_seconds * _WINDOWS_PER_SECOND
    quiet = []
    for first, last in zip(borders[::2], borders[1::2], strict=True):
        if last - first >= least:
            groups = _groups(probabilities[first:last].tolist(), options.quiet_threshold, options)
            quiet += [[(start + first, end + first) for start, end in runs] for runs in groups]
    return quiet


def _padded(spans: Sequence[_Run], pad: int, samples: int) -> list[tuple[int, int]]:
    """The spans of windows in samples, each with a margin; where two margins meet, each span gets half of the gap."""
    padded = []
    for index, (first, last) in enumerate(spans):
        start, end = first * WINDOW_SAMPLES, last * WINDOW_SAMPLES
        before = start if index == 0 else (start - spans[index - 1][1] * WINDOW_SAMPLES) // 2
        after = samples - end if index == len(spans) - 1 else (spans[index + 1][0] * WINDOW_SAMPLES - end) // 2
        padded.append((start - min(pad, before), min(samples, end + min(pad, max(0, after)))))
    return padded


def _segment(runs: Sequence[_Run], start: int, end: int) -> SpokenSegment:
    clipped = ((max(start, first * WINDOW_SAMPLES), min(end, last * WINDOW_SAMPLES)) for first, last in runs)
    return SpokenSegment(start, end, tuple((since, until) for since, until in clipped if since < until))


def _cuts(powers: NDArray[np.float32], runs: Sequence[_Run], options: SegmentationOptions) -> list[int]:
    """Where to cut a group, in samples from the start of the recording; empty if it is short enough.

    Of all ways to cut it into pieces of a permitted length, this is the one whose cuts are the quietest together. Each
    further cut costs as much as 20 dB: few cuts are better than quiet ones.
    """
    first, last = runs[0][0], runs[-1][1]
    length = last - first
    longest = int((options.longest_seconds - 2 * options.pad_seconds) * _WINDOWS_PER_SECOND)
    shortest = min(int(options.shortest_piece_seconds * _WINDOWS_PER_SECOND), longest // 2)
    if length <= longest:
        return []
    costs = _cut_costs(powers[first:last])
    costs.append(0.0)
    total = [0.0] * (length + 1)
    came_from = [0] * (length + 1)
    # The cheapest predecessors of a position, cheapest first: the minimum of a sliding window.
    cheapest: deque[int] = deque()
    for position in range(shortest, length + 1):
        entering = position - shortest
        if entering == 0 or entering >= shortest:
            while cheapest and total[cheapest[-1]] >= total[entering]:
                cheapest.pop()
            cheapest.append(entering)
        while cheapest and cheapest[0] < position - longest:
            cheapest.popleft()
        # Positions that no permitted pieces lead to are never chosen.
        total[position] = total[cheapest[0]] + costs[position] if cheapest else float("inf")
        came_from[position] = cheapest[0] if cheapest else 0
    cuts = []
    position = came_from[length]
    while position:
        cuts.append((first + position) * WINDOW_SAMPLES + WINDOW_SAMPLES // 2)
        position = came_from[position]
    return cuts[::-1]


def _cut_costs(powers: NDArray[np.float32]) -> list[float]:
    """The cost of a cut in the middle of each window: its level above silence in decibels, and a constant."""
    levels = 10 * np.log10(np.maximum(powers, _SILENCE) / _SILENCE)
    around = np.convolve(levels, np.ones(_PAUSE_WINDOWS), mode="same") / _PAUSE_WINDOWS
    return [float(level) + _COST_OF_A_CUT for level in around]
