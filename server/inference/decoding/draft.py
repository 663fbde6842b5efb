"""What a row is likely to write next, from what was written of less of the same audio. Pure."""

from collections.abc import Sequence
from typing import Final

AT_ONCE: Final = 16
"""Tokens that are read ahead at most: more would cost as much as a step where they are wrong."""
_SLIP = 4
"""How many tokens of the draft may be missing from the text for it to be found again."""
_MISSES = 3
"""After so many tokens in a row that are not the draft's, nothing is read ahead until one is."""


class Draft:
    """One row's draft, and how far the row has come in it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._found = 0
        self._seen = 0
        self._misses = 0

    def after(self, written: Sequence[int]) -> Sequence[int]:
        """What may follow all that was written; nothing where the draft does not say.

        The place in the draft moves on by one at least with each of its tokens that is right, so no more of them are
        right than it has.
        """
        for token in written[self._seen :]:
            self._follow(token)
        self._seen = len(written)
        if self._misses >= _MISSES:
            return ()
        # Another token is taken for one in the place of the draft's, as a comma for a full stop.
        start = self._found + self._misses
        return self._tokens[start : start + AT_ONCE]

    def _follow(self, token: int) -> None:
        near = self._tokens[self._found : self._found + self._misses + 1 + _SLIP]
        if token in near:
            self._found, self._misses = self._found + near.index(token) + 1, 0
        else:
            self._misses += 1
