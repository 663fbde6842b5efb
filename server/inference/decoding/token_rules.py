"""What a row of a batch may write next, and when it is done: Whisper's timestamp mode as rules. Pure.

A transcript is a series of `<stamp> text <stamp>`. Where the audio is followed by little silence the model tends not to
stop by itself but begins again; a closing stamp near the end of the utterance is then the sign that it is through.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from server.inference.decoding.repetition import RepetitionGuard
from server.inference.whisper.special_tokens import SECONDS_PER_STAMP, SpecialTokens

EndReason = Literal["end", "closed", "loop", "cap"]
"""The model stopped; it closed a segment at the utterance's end; it repeated itself; it wrote too much."""

CLOSING_SECONDS = 0.3
"""A segment closed this close to the utterance's end is the last one."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The tokens a row may choose from next."""

    text: bool
    opens_text: bool
    """This would be the first text token: those that no text begins with are out."""
    end: bool
    stamps: range


@dataclass(slots=True)
class RowDecoding:
    """One row's tokens so far."""

    special_tokens: SpecialTokens
    duration: float
    """Seconds of audio, without padding."""
    cap: int
    """The most tokens to write, stamps included."""
    guard: RepetitionGuard
    tokens: list[int] = field(default_factory=list)
    """What was written, stamps included."""
    text: list[int] = field(default_factory=list)
    """The text tokens alone."""
    log_probabilities: list[float] = field(default_factory=list)
    """Of the text tokens."""
    ending: EndReason | None = None
    """Why the row is done, or None while it is not."""
    _last_stamp: int | None = None

    def allowed(self) -> Allowed:
        special_tokens = self.special_tokens
        if not self.tokens:
            first = range(special_tokens.first_stamp, special_tokens.last_initial_stamp + 1)
            return Allowed(text=False, opens_text=False, end=False, stamps=first)
        opens_text = not self.text
        if self._is_stamp(-1):
            if len(self.tokens) == 1 or self._is_stamp(-2):
                return Allowed(text=True, opens_text=opens_text, end=True, stamps=range(0))
            return Allowed(text=False, opens_text=False, end=True, stamps=self._stamps_from(0))
        return Allowed(text=True, opens_text=opens_text, end=True, stamps=self._stamps_from(1))

    @property
    def unheard_seconds(self) -> float:
        """How much audio is left after the last stamp, where the row ended there and not in a text that goes on."""
        if self.ending != "end" or not self.tokens or not self._is_stamp(-1):
            return 0.0
        return max(0.0, self.duration - self._seconds(self.tokens[-1]))

    def branch(self) -> "RowDecoding":
        """Another row that has written the same."""
        return replace(
            self,
            tokens=list(self.tokens),
            text=list(self.text),
            log_probabilities=list(self.log_probabilities),
        )

    def accept(self, token: int, log_probability: float) -> None:
        """Takes the chosen token and decides whether the row is done."""
        if token == self.special_tokens.end:
            self.ending = "end"
            return
        self.tokens.append(token)
        if self._is_stamp(-1):
            self._last_stamp = token
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

    def _is_stamp(self, index: int) -> bool:
        return self.tokens[index] >= self.special_tokens.first_stamp

    def _seconds(self, stamp: int) -> float:
        return (stamp - self.special_tokens.first_stamp) * SECONDS_PER_STAMP

    def _stamps_from(self, step: int) -> range:
        """Time never runs backwards, and a segment (`step` 1) is never empty."""
        last = self.special_tokens.first_stamp if self._last_stamp is None else self._last_stamp + step
        return range(last, self.special_tokens.size)
