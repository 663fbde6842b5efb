"""Detects repetition loops in decoded text. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_PERIOD = 40
"""In tokens: a decoder in a loop may repeat whole sentences."""


@dataclass(frozen=True, slots=True)
class RepetitionGuard:
    """How often a phrase must occur in a row to count as a loop. People repeat themselves, above all short words."""

    short: int
    """For periods below `boundary` tokens."""
    long: int
    """For longer ones."""
    boundary: int = 6

    def loop_start(self, tokens: Sequence[int]) -> int | None:
        """The index at which the repetition at the end of `tokens` begins for the second time, or None without one.

        Cutting there keeps the repeated phrase once. To be called after every token: loops that ended earlier are not
        detected.
        """
        length = len(tokens)
        for period in range(1, min(LONGEST_PERIOD, length // 2) + 1):
            times = self.short if period < self.boundary else self.long
            if period * times > length:
                continue
            # The tail has period p exactly when it equals itself shifted by p.
            if tokens[length - period * (times - 1) :] == tokens[length - period * times : length - period]:
                return length - period * (times - 1)
        return None


STRICT = RepetitionGuard(short=3, long=2)
"""For the shortened window: a false alarm costs one attempt with the full window."""
LENIENT = RepetitionGuard(short=6, long=3)
"""For the full window, whose cut is final."""
