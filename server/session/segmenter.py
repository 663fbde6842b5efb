"""Cuts a stream into speech segments by the probability of speech in each window. Pure: it receives no audio.

Positions are samples at 16 kHz from the start of the stream.
"""

from collections import deque
from dataclasses import dataclass, field

from server.session.options import VadOptions
from server.vad.silero import WINDOW_SAMPLES, Window

_RATE = 16_000
_PAD = _RATE // 5
"""Margin on both sides of a segment: the detector notices speech a little late and loses it a little early, and Whisper
does better with a margin."""
_HYSTERESIS = 0.15
"""Speech continues until the probability is this far below the threshold."""
_CUT_SEARCH = 0.4
"""Share of the longest utterance, at its end, that is searched for a quiet point to cut at."""
_QUIET_WINDOWS = 3
"""The power at a point is the mean of this many windows around it: the closure of a plosive is no pause."""


@dataclass(frozen=True, slots=True)
class SpeechStart:
    position: int


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    position: int


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A stretch to transcribe as one utterance: samples `start` to `end`, the latter excluded."""

    start: int
    end: int
    speech: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    """The stretches with detected speech, in samples from the start of the segment, in order."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Confirmed speech in progress."""

    start: int
    voiced_until: int
    """The end of the last window with speech."""


SegmenterEvent = SpeechStart | SpeechEnd | SpeechSegment


class Segmenter:
    """The segmentation of one stream.

    Speech is a candidate from its first window, and confirmed (and announced) once it has lasted `min_speech_ms`; a
    candidate that falls silent before that was noise. Confirmed speech ends after `min_silence_ms` of silence, or is
    cut at the quietest point of its last part once it is `max_utterance_seconds` long. A candidate may grow longer than
    that until it is confirmed or falls silent, which takes `min_speech_ms` and `min_silence_ms` at most.
    """

    def __init__(self, options: VadOptions) -> None:
        self._threshold = options.threshold
        self._release = max(options.threshold - _HYSTERESIS, options.threshold / 2)
        self._min_speech = options.min_speech_ms * _RATE // 1000
        self._min_silence = options.min_silence_ms * _RATE // 1000
        self._max_length = int(options.max_utterance_seconds * _RATE)
        self._cut_windows = int(self._max_length * _CUT_SEARCH) // WINDOW_SAMPLES
        longest = self._max_length + _PAD + self._min_speech + self._min_silence
        self._powers: deque[float] = deque(maxlen=longest // WINDOW_SAMPLES + 2)
        self._position = 0
        self._start: int | None = None
        self._confirmed = False
        self._voiced_from = 0
        self._voiced_until = 0
        self._voiced: list[tuple[int, int]] = []  # since the start, as disjoint stretches
        self._free_from = 0

    @property
    def needed_from(self) -> int:
        """The earliest position at which a later segment can start: audio before it can be discarded."""
        if self._start is not None:
            return self._start
        return max(self._free_from, self._position - _PAD)

    @property
    def speech(self) -> Speech | None:
        """The speech in progress, if it is confirmed."""
        if self._start is None or not self._confirmed:
            return None
        return Speech(self._start, self._voiced_until)

    def push(self, window: Window) -> list[SegmenterEvent]:
        """Processes the next window. Returns the resulting events in order."""
        window_start = self._position
        self._position += WINDOW_SAMPLES
        self._powers.append(window.power)
        if window.probability >= self._threshold:
            if self._start is None:
                self._start = max(self._free_from, window_start - _PAD)
                self._voiced_from = window_start
                self._confirmed = False
                self._voiced.clear()
            self._mark_voiced(window_start)
        elif self._start is not None and window.probability >= self._release:
            self._mark_voiced(window_start)
        if self._start is None:
            return []
        return self._judge(self._start)

    def flush(self, received: int) -> list[SegmenterEvent]:
        """Ends confirmed speech at position `received`, which may lie within a window."""
        if self._start is None or not self._confirmed:
            return []  # unconfirmed speech is not cut: it continues, or was noise
        start, self._start = self._start, None
        self._free_from = received
        if self._voiced_until <= start:
            return [SpeechEnd(received)]
        return [SpeechEnd(received), self._segment(start, received)]

    def _mark_voiced(self, window_start: int) -> None:
        """Marks the latest window, which begins at `window_start`, as speech."""
        self._voiced_until = self._position
        if self._voiced and self._voiced[-1][1] == window_start:
            window_start, _ = self._voiced.pop()
        self._voiced.append((window_start, self._position))

    def _segment(self, start: int, end: int) -> SpeechSegment:
        clipped = ((max(since, start) - start, min(until, end) - start) for since, until in self._voiced)
        # The last stretch may reach beyond a cut.
        speech = tuple((since, until) for since, until in clipped if since < until)
        self._voiced = [(since, until) for since, until in self._voiced if until > end]
        return SpeechSegment(start, end, speech)

    def end(self, received: int) -> list[SegmenterEvent]:
        """Ends confirmed speech as silence would. `received` is the end of the audio."""
        if self._start is None or not self._confirmed:
            return []
        return self._end(self._start, received)

    def _judge(self, start: int) -> list[SegmenterEvent]:
        events: list[SegmenterEvent] = []
        if not self._confirmed and self._voiced_until - self._voiced_from >= self._min_speech:
            self._confirmed = True
            events.append(SpeechStart(start))
        if self._position - self._voiced_until >= self._min_silence:
            events += self._end(start, self._position)
        elif self._confirmed:
            while self._position + WINDOW_SAMPLES - start > self._max_length:
                cut = self._quietest_point(start)
                if self._voiced_until > start:
                    events.append(self._segment(start, cut))
                self._start = self._free_from = start = cut
        return events

    def _end(self, start: int, received: int) -> list[SegmenterEvent]:
        confirmed, self._start = self._confirmed, None
        if not confirmed:
            return []
        self._free_from = end = max(start, min(self._voiced_until + _PAD, received))
        if self._voiced_until <= start:  # only silence was left after a cut
            return [SpeechEnd(end)]
        return [SpeechEnd(end), self._segment(start, end)]

    def _quietest_point(self, start: int) -> int:
        """Where to cut speech that began at `start`: in the last part of the longest utterance."""
        before = len(self._powers)
        excess = max(0, self._position - start - self._max_length)
        last = before - -(-excess // WINDOW_SAMPLES)
        powers = list(self._powers)[max(0, last - self._cut_windows) : last]
        first = self._position - (before - last + len(powers)) * WINDOW_SAMPLES
        sums = [sum(powers[i : i + _QUIET_WINDOWS]) for i in range(len(powers) - _QUIET_WINDOWS + 1)]
        quietest = min(range(len(sums)), key=lambda i: (sums[i], -i))
        return first + quietest * WINDOW_SAMPLES + _QUIET_WINDOWS * WINDOW_SAMPLES // 2
