"""Predicts the next tokens of a row from a draft: the tokens decoded from less of the same audio. Pure."""

from collections.abc import Sequence
from typing import Final

AT_ONCE: Final = 16
"""The most drafted tokens that one step checks: more would cost as much as a step if they are wrong."""
_SLIP = 4
"""The most tokens of the draft that may be missing from the text for the position to be found again."""
_MISSES = 3
"""After so many consecutive tokens that are not in the draft, nothing is predicted until one is."""


class Draft:
    """The draft of one row, and the row's position in it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._found = 0
        self._seen = 0
        self._misses = 0

    def after(self, decoded: Sequence[int]) -> Sequence[int]:
        """The predicted tokens after the decoded ones; empty if the draft does not match.

        The position advances by at least one with each right token, so no more tokens are right than the draft has.
        """
        for token in decoded[self._seen :]:
            self._follow(token)
        self._seen = len(decoded)
        if self._misses >= _MISSES:
            return ()
        # A differing token is assumed to replace one of the draft, as a comma replaces a full stop.
        start = self._found + self._misses
        return self._tokens[start : start + AT_ONCE]

    def _follow(self, token: int) -> None:
        near = self._tokens[self._found : self._found + self._misses + 1 + _SLIP]
        if token in near:
            self._found, self._misses = self._found + near.index(token) + 1, 0
        else:
            self._misses += 1
