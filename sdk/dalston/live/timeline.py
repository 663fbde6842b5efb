"""One timeline for all sessions of a transcription. Pure.

Every session counts seconds from its own first byte. The timeline converts them to seconds of the caller's audio, drops
results that a resumed session repeats, and chooses the point at which the next session has to begin.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from dalston.events import Acknowledged, FinalResult, Flushed, PartialResult, SpeechEnded, SpeechStarted, Warned, Word

SLACK_SECONDS = 30.0
"""Audio that is kept after the service has finished with it. It exceeds the longest utterance, so that it contains the
end of an utterance, or silence."""

_SAME_SECONDS = 0.01
"""Times closer than this are considered equal."""
_CUT_SECONDS = 0.25
"""An utterance that ends this close to the end of the sent audio was cut off there, not ended by a pause."""

TimelineEvent = FinalResult | PartialResult | SpeechStarted | SpeechEnded | Flushed | Acknowledged | Warned


class Timeline:
    """Tracks the results and the progress of a transcription."""

    def __init__(self) -> None:
        self.offset = 0.0
        """The point in the caller's audio at which the current session begins, in seconds."""
        self.last_end = 0.0
        """End of the last final; results before it are not emitted again."""
        self.acknowledged = Acknowledged(0.0, 0.0, 0.0)
        """The furthest progress of any session."""
        self._ends: deque[float] = deque()
        self._stored = 0.0
        self._processed = 0.0
        self._is_speaking = False
        self._last_speech = 0.0
        self._suppressed_until = 0.0

    def begin_session(self, offset: float) -> None:
        """Starts a session at this point of the caller's audio."""
        self.offset = offset
        # What earlier sessions stored up to this point is part of the recording; what they stored after it is not.
        self._stored = min(self._stored, offset)
        self._processed = min(self._processed, offset)

    def final(self, final: FinalResult, sent: float | None = None) -> FinalResult | None:
        """Converts a final of the current session to the caller's time; None if it was emitted before.

        Args:
            sent: the point in seconds at which the audio of this session was cut off to continue in another one, which
                transcribes an utterance that ends there as a whole.
        """
        start, end = self.offset + final.start, self.offset + final.end
        if (start + end) / 2 < self.last_end + _SAME_SECONDS or (sent is not None and end > sent - _CUT_SECONDS):
            return None
        self.last_end = max(self.last_end, end)
        self._ends.append(self.last_end)
        return replace(final, start=start, end=end, words=tuple(self._word(word) for word in final.words))

    def suppressed(self, warned: Warned) -> Warned | None:
        """Converts a `speech_suppressed` warning to the caller's time; None if it was emitted before."""
        try:
            start, end = (self.offset + float(warned.details[name]) for name in ("start", "end"))
        except (KeyError, ValueError):  # The service sent no times.
            return warned
        if (start + end) / 2 < max(self.last_end, self._suppressed_until) + _SAME_SECONDS:
            return None
        self._suppressed_until = end
        details = {**warned.details, "start": _text(start), "end": _text(end)}
        return replace(warned, details=details)

    def partial(self, partial: PartialResult) -> PartialResult | None:
        """Converts a partial to the caller's time; None if the final of its utterance was emitted."""
        start, end = self.offset + partial.start, self.offset + partial.end
        if (start + end) / 2 < self.last_end + _SAME_SECONDS:
            return None
        return PartialResult(partial.text, start, end)

    def speech_started(self, timestamp: float) -> SpeechStarted | None:
        """Converts the start of speech to the caller's time; None if it was emitted before."""
        time = self.offset + timestamp
        if self._is_speaking or time < self._last_speech - _SAME_SECONDS:
            return None
        self._is_speaking, self._last_speech = True, max(time, self._last_speech)
        return SpeechStarted(time)

    def speech_ended(self, timestamp: float) -> SpeechEnded | None:
        """Converts the end of speech to the caller's time; None if it was emitted before."""
        time = self.offset + timestamp
        if not self._is_speaking or time < self._last_speech - _SAME_SECONDS:
            return None
        self._is_speaking, self._last_speech = False, max(time, self._last_speech)
        return SpeechEnded(time)

    def flushed(self, timestamp: float) -> Flushed:
        """Converts the response to a flush to the caller's time."""
        return Flushed(self.offset + timestamp)

    def acknowledge(self, received: float, processed: float, stored: float) -> Acknowledged:
        """Converts the progress of the service to the caller's time. None of the three ever decreases."""
        self._processed = max(self._processed, self.offset + processed)
        if stored > 0:
            self._stored = max(self._stored, self.offset + stored)
        before = self.acknowledged
        self.acknowledged = Acknowledged(
            max(before.received, self.offset + received),
            max(before.processed, self._processed),
            max(before.stored, self._stored),
        )
        return self.acknowledged

    def completed(self, duration: float) -> None:
        """Notes that the current session completed with `duration` seconds of audio, all of which is stored."""
        self._stored = max(self._stored, self.offset + duration)
        received = max(self.acknowledged.received, self.offset + duration)
        self.acknowledged = replace(self.acknowledged, received=received)

    def safe_until(self, *, stores_audio: bool) -> float:
        """The point before which no audio will have to be sent again."""
        done = min(self._processed, self._stored) if stores_audio else self._processed
        return max(0.0, done - SLACK_SECONDS)

    def resume_point(self, buffer_start: float, *, stores_audio: bool) -> float:
        """The point at which the next session has to begin.

        Normally this is the end of the last final. If the session stores audio and has not stored it up to there, it is
        the end of the last utterance that is stored, so that the recording has no gap and no word is cut. It is never
        before the start of the current session, which is then replaced as a whole, nor before the buffered audio.

        Args:
            buffer_start: the start of the audio that can be sent again.
        """
        point = self.last_end
        if stores_audio and self._stored < point:
            while self._ends and self._ends[0] < max(buffer_start, self.offset):
                self._ends.popleft()
            point = max((end for end in self._ends if end <= self._stored), default=0.0)
        return max(point, buffer_start, self.offset)

    def discard_before(self, position: float) -> None:
        """Discards the ends of utterances before a point at which no session will begin any more."""
        while self._ends and self._ends[0] < position:
            self._ends.popleft()

    def _word(self, word: Word) -> Word:
        return replace(word, start=self.offset + word.start, end=self.offset + word.end)


def _text(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
