"""One timeline over all the sessions that a transcription takes. Pure.

Every session counts its seconds from its own first byte. Here they become seconds of the caller's audio, what a session
says again is left out, and the point is chosen where the next session has to begin so that nothing is missing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from dalston.events import Acknowledged, FinalResult, Flushed, PartialResult, SpeechEnded, SpeechStarted, Warned, Word

SLACK_SECONDS = 30.0
"""How much audio is kept that the service has done with. It is more than the longest utterance, so that there is an end
of an utterance in it, or silence."""

_SAME_SECONDS = 0.01
"""Two times nearer than this are one."""
_CUT_SECONDS = 0.25
"""An utterance that ends so near to the end of what was sent was ended by that, not by a pause."""

Told = FinalResult | PartialResult | SpeechStarted | SpeechEnded | Flushed | Acknowledged | Warned


class Timeline:
    """Follows what a transcription has said so far."""

    def __init__(self) -> None:
        self.offset = 0.0
        """Where in the caller's audio the current session begins."""
        self.last_end = 0.0
        """End of the last final; nothing before it is said again."""
        self.acknowledged = Acknowledged(0.0, 0.0, 0.0)
        """The furthest that any session was."""
        self._ends: deque[float] = deque()
        self._stored = 0.0
        self._processed = 0.0
        self._is_speaking = False
        self._last_speech = 0.0
        self._suppressed_until = 0.0

    def begin(self, offset: float) -> None:
        """A session begins at this point of the caller's audio."""
        self.offset = offset
        # What the sessions before have stored up to here is part of the recording; what they stored behind is not.
        self._stored = min(self._stored, offset)
        self._processed = min(self._processed, offset)

    def final(self, final: FinalResult, sent: float | None = None) -> FinalResult | None:
        """A final of the current session in the caller's time; None if it was told before.

        Args:
            sent: the caller's audio was cut off here, in seconds, and goes on in another session: an utterance that
                ends there is told by that one, as a whole.
        """
        start, end = self.offset + final.start, self.offset + final.end
        if (start + end) / 2 < self.last_end + _SAME_SECONDS or (sent is not None and end > sent - _CUT_SECONDS):
            return None
        self.last_end = max(self.last_end, end)
        self._ends.append(self.last_end)
        return replace(final, start=start, end=end, words=tuple(self._word(word) for word in final.words))

    def suppressed(self, warned: Warned) -> Warned | None:
        """A warning of speech without a final in the caller's time; None if it was told before."""
        try:
            start, end = (self.offset + float(warned.details[name]) for name in ("start", "end"))
        except (KeyError, ValueError):  # Of a service that says less.
            return warned
        if (start + end) / 2 < max(self.last_end, self._suppressed_until) + _SAME_SECONDS:
            return None
        self._suppressed_until = end
        details = {**warned.details, "start": _text(start), "end": _text(end)}
        return replace(warned, details=details)

    def partial(self, partial: PartialResult) -> PartialResult | None:
        """A partial in the caller's time; None if the final of its utterance has come."""
        start, end = self.offset + partial.start, self.offset + partial.end
        if (start + end) / 2 < self.last_end + _SAME_SECONDS:
            return None
        return PartialResult(partial.text, start, end)

    def speech_started(self, timestamp: float) -> SpeechStarted | None:
        """The beginning of speech in the caller's time; None if it was told before."""
        time = self.offset + timestamp
        if self._is_speaking or time < self._last_speech - _SAME_SECONDS:
            return None
        self._is_speaking, self._last_speech = True, max(time, self._last_speech)
        return SpeechStarted(time)

    def speech_ended(self, timestamp: float) -> SpeechEnded | None:
        """The end of speech in the caller's time; None if it was told before."""
        time = self.offset + timestamp
        if not self._is_speaking or time < self._last_speech - _SAME_SECONDS:
            return None
        self._is_speaking, self._last_speech = False, max(time, self._last_speech)
        return SpeechEnded(time)

    def flushed(self, timestamp: float) -> Flushed:
        """The answer to a flush in the caller's time."""
        return Flushed(self.offset + timestamp)

    def acknowledge(self, received: float, processed: float, stored: float) -> Acknowledged:
        """How far the service is, in the caller's time. None of the three ever decreases."""
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
        """The current session ended well, with so many seconds of audio: all of it is kept."""
        self._stored = max(self._stored, self.offset + duration)
        received = max(self.acknowledged.received, self.offset + duration)
        self.acknowledged = replace(self.acknowledged, received=received)

    def releasable(self, *, stores_audio: bool) -> float:
        """Audio before this point will not have to be sent again."""
        done = min(self._processed, self._stored) if stores_audio else self._processed
        return max(0.0, done - SLACK_SECONDS)

    def resume_point(self, kept_from: float, *, stores_audio: bool) -> float:
        """Where the next session has to begin.

        The end of the last final, for what was said before has been told. A recording must have no gap either, so if
        there is one it is the last end of an utterance that is stored: between two utterances no word is cut. Never
        before the current session, which then is replaced as a whole, nor before the audio that there still is.

        Args:
            kept_from: where the audio that can be sent again begins.
        """
        point = self.last_end
        if stores_audio and self._stored < point:
            while self._ends and self._ends[0] < max(kept_from, self.offset):
                self._ends.popleft()
            point = max((end for end in self._ends if end <= self._stored), default=0.0)
        return max(point, kept_from, self.offset)

    def forget(self, before: float) -> None:
        """No session will begin before this point any more."""
        while self._ends and self._ends[0] < before:
            self._ends.popleft()

    def _word(self, word: Word) -> Word:
        return replace(word, start=self.offset + word.start, end=self.offset + word.end)


def _text(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")
