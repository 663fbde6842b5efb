"""The allowed next tokens of a row, and when it is done: Whisper's timestamp mode as rules. Pure.

A transcript is a series of `<timestamp> text <timestamp>`. If the audio is followed by little silence the model tends
to begin again instead of stopping; a closing timestamp near the end of the utterance then shows that it has finished.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from server.inference.decoding.repetition import RepetitionGuard
from server.inference.whisper.special_tokens import SECONDS_PER_TIMESTAMP, SpecialTokens

EndReason = Literal["end", "closed", "loop", "cap"]
"""The model stopped; it closed a segment at the end of the utterance; it repeated itself; it reached the limit."""

CLOSING_SECONDS = 0.3
"""A segment that is closed this close to the end of the utterance is the last one."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The tokens a row may choose from next."""

    text: bool
    opens_text: bool
    """Whether this would be the first text token: tokens that no text begins with are excluded."""
    end: bool
    timestamps: range


@dataclass(slots=True)
class RowDecoding:
    """One row's tokens so far."""

    special_tokens: SpecialTokens
    duration: float
    """Seconds of audio, without padding."""
    cap: int
    """The most tokens, timestamps included."""
    guard: RepetitionGuard
    tokens: list[int] = field(default_factory=list)
    """All decoded tokens, timestamps included."""
    text: list[int] = field(default_factory=list)
    """The text tokens alone."""
    log_probabilities: list[float] = field(default_factory=list)
    """Of the text tokens."""
    ending: EndReason | None = None
    """Why the row is done, or None while it is not."""
    _last_timestamp: int | None = None

    def allowed(self) -> Allowed:
        special_tokens = self.special_tokens
        if not self.tokens:
            first = range(special_tokens.first_timestamp, special_tokens.last_initial_timestamp + 1)
            return Allowed(text=False, opens_text=False, end=False, timestamps=first)
        opens_text = not self.text
        if self._is_timestamp(-1):
            if len(self.tokens) == 1 or self._is_timestamp(-2):
                return Allowed(text=True, opens_text=opens_text, end=True, timestamps=range(0))
            return Allowed(text=False, opens_text=False, end=True, timestamps=self._timestamps_from(0))
        return Allowed(text=True, opens_text=opens_text, end=True, timestamps=self._timestamps_from(1))

    @property
    def seconds_after_last_timestamp(self) -> float:
        """The audio after the last timestamp, if the row ended with one and not with text."""
        if self.ending != "end" or not self.tokens or not self._is_timestamp(-1):
            return 0.0
        return max(0.0, self.duration - self._seconds(self.tokens[-1]))

    def branch(self) -> "RowDecoding":
        """A copy of the row."""
        return replace(
            self,
            tokens=list(self.tokens),
            text=list(self.text),
            log_probabilities=list(self.log_probabilities),
        )

    def accept(self, token: int, log_probability: float) -> None:
        """Appends the chosen token, and decides whether the row is done."""
        if token == self.special_tokens.end:
            self.ending = "end"
            return
        self.tokens.append(token)
        if self._is_timestamp(-1):
            self._last_timestamp = token
            if self.text and self._seconds(token) >= self.duration - CLOSING_SECONDS:
                self.ending = "closed"
        else:
            self.text.append(token)
            self.log_probabilities.append(log_probability)
            if (start := self.guard.loop_start(self.text)) is not None:
                del self.text[start:], self.log_probabilities[start:]
                self.ending = "loop"
        if self.ending is None and len(self.tokens) >= self.cap:
            self.ending = "cap"

    def _is_timestamp(self, index: int) -> bool:
        return self.tokens[index] >= self.special_tokens.first_timestamp

    def _seconds(self, timestamp: int) -> float:
        return (timestamp - self.special_tokens.first_timestamp) * SECONDS_PER_TIMESTAMP

    def _timestamps_from(self, step: int) -> range:
        """The timestamps that keep time from running backwards, and a segment (`step` 1) from being empty."""
        last = self.special_tokens.first_timestamp if self._last_timestamp is None else self._last_timestamp + step
        return range(last, self.special_tokens.size)
