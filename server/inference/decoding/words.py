"""Words and their times, from tokens and theirs. Pure."""

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from server.inference.recognition import Word

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages without spaces between words: each character, or group that the tokenizer keeps together, is a word."""

Decode = Callable[[list[int]], str]
"""Decodes tokens to text; an incomplete character becomes the replacement character."""


@dataclass(slots=True)
class _Span:
    """A piece of the text and its tokens, from `first` to `last`, the latter excluded."""

    text: str
    first: int
    last: int

    @property
    def spoken(self) -> bool:
        """Whether any of it is pronounced: letters, digits and the marks that belong to letters are."""
        return any(unicodedata.category(character)[0] in "LNM" for character in self.text)


@dataclass(frozen=True, slots=True)
class TimedTokens:
    """The tokens of a text; `starts` has one more, the end of the last one. Seconds, never decreasing."""

    tokens: Sequence[int]
    log_probabilities: Sequence[float]
    starts: Sequence[float]


def timed_words(timed: TimedTokens, decode: Decode, language: str) -> tuple[Word, ...]:
    """The words of a text, in order; without white space they make up the text.

    A word's times and confidence are those of its spoken tokens: a comma has the time of the pause that it marks, and
    would extend the word before it to the next one.
    """
    words = []
    for span, spoken in _words(timed.tokens, decode, language):
        chances = timed.log_probabilities[spoken.first : spoken.last]
        words.append(
            Word(
                word=span.text.strip(),
                start=timed.starts[spoken.first],
                end=timed.starts[spoken.last],
                confidence=math.exp(sum(chances) / len(chances)),
            )
        )
    return tuple(words)


def certain_beginning(
    tokens: Sequence[int], log_probabilities: Sequence[float], least: float, decode: Decode, language: str
) -> str:
    """The beginning of a text, up to the first word with a token whose probability is below `least`."""
    text = ""
    for span, spoken in _words(tokens, decode, language):
        if min(log_probabilities[spoken.first : spoken.last]) < math.log(least):
            break
        text += span.text
    return text.strip()


def _words(tokens: Sequence[int], decode: Decode, language: str) -> Iterator[tuple[_Span, _Span]]:
    """Each word, whole and reduced to its spoken part."""
    spaced = language not in UNSPACED
    whole: _Span | None = None
    spoken: _Span | None = None
    for piece in _pieces(tokens, decode):
        if whole is None or (piece.text[0].isspace() if spaced else _begins_unspaced(piece, whole)):
            if whole is not None and whole.text.strip():
                yield whole, spoken or whole
            whole, spoken = piece, None
        else:
            whole = _Span(whole.text + piece.text, whole.first, piece.last)
        if piece.spoken:
            spoken = _Span(piece.text, spoken.first if spoken else piece.first, piece.last)
    if whole is not None and whole.text.strip():
        yield whole, spoken or whole


def _begins_unspaced(piece: _Span, before: _Span) -> bool:
    """Punctuation belongs to the character before it, an opening bracket or quotation mark to the one after."""
    if not before.spoken:
        return False
    return piece.spoken or unicodedata.category(piece.text.strip()[:1] or " ") in ("Ps", "Pi")


def _pieces(tokens: Sequence[int], decode: Decode) -> Iterator[_Span]:
    """The text in the smallest pieces that are whole characters: a token may be a part of one."""
    text, offset, first = decode(list(tokens)), 0, 0
    for last in range(1, len(tokens) + 1):
        piece = decode(list(tokens[first:last]))
        if piece and (text.startswith(piece, offset) or last == len(tokens)):
            yield _Span(piece, first, last)
            offset, first = offset + len(piece), last
