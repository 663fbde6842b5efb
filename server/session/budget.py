"""How many utterances a session may have transcribed: what is too much is joined with what follows. Pure.

The model takes as long for a tenth of a second as for two seconds, so who ends an utterance ten times a second takes
ten times the model's time for the same audio.
"""

from dataclasses import dataclass, field
from typing import Final

from server.audio.decoder import MODEL_RATE
from server.session.events import Flushed
from server.session.language import SpokenLanguage
from server.session.options import MAX_UTTERANCE_SECONDS
from server.session.segmenter import SpeechSegment

PER_SECOND: Final = 2.0
"""Utterances in a second of audio, or of the clock where less audio comes: nobody speaks more sentences."""
AT_ONCE: Final = 8.0
"""More for once, by a session that had fewer before."""
MOST_DEBT: Final = 16.0
"""What a session can owe for utterances that took the model longer than others: its next one waits for 8 s at most."""
MOST_FLUSHES: Final = 64
"""Flushes that one utterance answers; who sends more waits."""

_LONGEST: Final = int(MAX_UTTERANCE_SECONDS * MODEL_RATE)


class UtteranceBudget:
    """A token bucket that the session's audio fills, and the clock."""

    def __init__(self, now: float) -> None:
        """`now`: any clock, in seconds, here and below."""
        self._left = AT_ONCE
        self._audio_seconds = 0.0
        self._at = now

    def take(self, audio_seconds: float, now: float) -> bool:
        """Takes one if there is one.

        Args:
            audio_seconds: how much audio the session has received.
        """
        gained = PER_SECOND * max(audio_seconds - self._audio_seconds, now - self._at)
        self._left = min(AT_ONCE, self._left + gained)
        self._audio_seconds, self._at = audio_seconds, now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def charge(self, more: float) -> None:
        """Takes what an utterance has cost beyond one, once that is known."""
        self._left = max(-MOST_DEBT, self._left - more)

    def wait(self, now: float) -> float:
        """In how many seconds of the clock there is one, if no audio comes; 0 if there is now."""
        return max(0.0, (1 - self._left) / PER_SECOND - (now - self._at))


@dataclass(slots=True)
class Held:
    """An utterance that waits for the budget, and grows meanwhile."""

    utterance: SpeechSegment
    language: SpokenLanguage
    flushes: list[Flushed] = field(default_factory=list)
    """To be answered once it is transcribed."""

    def takes(self, utterance: SpeechSegment) -> bool:
        """Whether the two together are no longer than the longest utterance."""
        return utterance.end - self.utterance.start <= _LONGEST

    def join(self, utterance: SpeechSegment) -> None:
        """Goes on to the end of an utterance that follows it."""
        start, offset = self.utterance.start, utterance.start - self.utterance.start
        speech = tuple((since + offset, until + offset) for since, until in utterance.speech)
        self.utterance = SpeechSegment(start, utterance.end, self.utterance.speech + speech)
