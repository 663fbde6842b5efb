"""The number of utterances that a session may have transcribed. Segments beyond it are joined with later ones. Pure.

The model takes as long for a tenth of a second as for two seconds, so a client that ends an utterance ten times a
second costs ten times the model's time for the same audio.
"""

from dataclasses import dataclass, field
from typing import Final

from server.audio.decoder import MODEL_RATE
from server.session.events import Flushed
from server.session.language import SpokenLanguage
from server.session.options import MAX_UTTERANCE_SECONDS
from server.session.segmenter import SpeechSegment

PER_SECOND: Final = 2.0
"""Utterances per second of audio, or of wall time where less audio arrives. Nobody speaks more sentences than that."""
BURST: Final = 8.0
"""The most utterances that a session saves up for a burst."""
MAX_DEBT: Final = 16.0
"""The most that a session can owe for utterances that took the model longer than others: the next one waits for 8 s at
most."""
MAX_FLUSHES: Final = 64
"""The most flushes that one utterance answers. A session with more of them waits."""

_LONGEST: Final = int(MAX_UTTERANCE_SECONDS * MODEL_RATE)


class UtteranceBudget:
    """A token bucket that the session's audio fills, and wall time."""

    def __init__(self, now: float) -> None:
        """`now`: any clock, in seconds, here and below."""
        self._left = BURST
        self._audio_seconds = 0.0
        self._at = now

    def try_spend(self, audio_seconds: float, now: float) -> bool:
        """Spends one utterance. Returns False if there is none.

        Args:
            audio_seconds: the audio that the session has received so far.
        """
        gained = PER_SECOND * max(audio_seconds - self._audio_seconds, now - self._at)
        self._left = min(BURST, self._left + gained)
        self._audio_seconds, self._at = audio_seconds, now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, more: float) -> None:
        """Charges what an utterance has cost beyond one, once that is known."""
        self._left = max(-MAX_DEBT, self._left - more)

    def wait(self, now: float) -> float:
        """Seconds of wall time until there is one if no audio arrives; 0 if there is one now."""
        return max(0.0, (1 - self._left) / PER_SECOND - (now - self._at))


@dataclass(slots=True)
class HeldSegment:
    """A speech segment that waits for the budget, and grows meanwhile."""

    segment: SpeechSegment
    language: SpokenLanguage
    flushes: list[Flushed] = field(default_factory=list)
    """To be answered once the segment is transcribed."""

    def fits(self, segment: SpeechSegment) -> bool:
        """Whether the two together are no longer than the longest utterance."""
        return segment.end - self.segment.start <= _LONGEST

    def join(self, segment: SpeechSegment) -> None:
        """Extends the held segment to the end of one that follows it."""
        start, offset = self.segment.start, segment.start - self.segment.start
        speech = tuple((since + offset, until + offset) for since, until in segment.speech)
        self.segment = SpeechSegment(start, segment.end, self.segment.speech + speech)
