"""Finds text that has begun to go round in circles. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_PERIOD = 40
"""In tokens: a decoder that has lost its way repeats whole sentences too."""


@dataclass(frozen=True, slots=True)
class RepetitionGuard:
    """How often something must come in a row to count as a loop. People repeat themselves, above all in short words."""

    short: int
    """For periods below `boundary` tokens."""
    long: int
    """For longer ones."""
    boundary: int = 6

    def loop_start(self, tokens: Sequence[int]) -> int | None:
        """Where the repetition that `tokens` ends with begins for the second time, or None if they end with none.

        Cutting there keeps what was repeated once. Meant to be asked after every token: a loop that ended earlier is
        not looked for.
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


EAGER = RepetitionGuard(short=3, long=2)
"""For the shortened window: a false alarm costs one decoding of the full window."""
PATIENT = RepetitionGuard(short=6, long=3)
"""For the full window, whose cut is final."""
