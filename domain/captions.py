"""Conversion of utterances to captions: their lines and their times. Pure."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from domain.transcript import Utterance

_LONGEST_MS = 7_000
"""A caption that is shown longer is divided, if it has more than one word."""
_SHORTEST_MS = 1_000
"""A caption is shown at least as long, unless the next one begins earlier."""
_SENTENCE_ENDS = ".?!…。？！"  # noqa: RUF001 - of all scripts
_CLOSERS = "\"'”’»)]"  # noqa: RUF001 - the typographic quotes


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """The largest size of a caption."""

    max_line_length: int = 42
    """In characters. A line of one word may be longer."""
    max_lines: int = 2


@dataclass(frozen=True, slots=True)
class Caption:
    """Lines of text, and the times at which they appear and disappear, in milliseconds."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    """The smallest unit: a word, or a character of a script without spaces."""

    text: str
    has_space_before: bool
    start: float
    end: float

    @property
    def ends_sentence(self) -> bool:
        return self.text.rstrip(_CLOSERS)[-1:] in _SENTENCE_ENDS and bool(self.text.rstrip(_CLOSERS))


class Captioner:
    """Makes captions of utterances, which are pushed in their order.

    Captions are in the order of the words. Each begins with its first word, ends before the next one begins, and is
    shown for at least a millisecond, whatever the times of the utterances are.
    """

    def __init__(self, options: CaptionOptions) -> None:
        self._options = options
        self._held: Caption | None = None

    def push(self, utterance: Utterance) -> Iterator[Caption]:
        """Takes the next utterance; returns the captions that no later utterance changes."""
        for tokens in _divide(_tokens(utterance), self._options):
            yield from self._follow(_caption(tokens, self._options))

    def finish(self) -> Iterator[Caption]:
        """The remaining caption after the last utterance."""
        if self._held is not None:
            yield replace(self._held, end_ms=max(self._held.end_ms, self._held.start_ms + _SHORTEST_MS))
            self._held = None

    def _follow(self, caption: Caption) -> Iterator[Caption]:
        before, self._held = self._held, caption
        if before is None:
            return
        start = max(caption.start_ms, before.start_ms + 1)
        self._held = replace(caption, start_ms=start, end_ms=max(caption.end_ms, start + 1))
        wanted_end = max(before.end_ms, before.start_ms + _SHORTEST_MS)
        yield replace(before, end_ms=min(wanted_end, start))


def _caption(tokens: Sequence[_Token], options: CaptionOptions) -> Caption:
    start = max(0, round(tokens[0].start * 1000))
    end = max(start + 1, round(tokens[-1].end * 1000))
    return Caption(start, end, tuple(_balanced(tokens, options.max_line_length)))


def _divide(tokens: Sequence[_Token], options: CaptionOptions) -> Iterator[list[_Token]]:
    """Divides the tokens of one utterance into captions."""
    caption: list[_Token] = []
    for token in tokens:
        if caption and _is_full(caption, token, options):
            yield caption
            caption = []
        caption.append(token)
    if caption:
        yield caption


def _is_full(caption: list[_Token], token: _Token, options: CaptionOptions) -> bool:
    """Whether a caption is complete without the next token."""
    if len(_wrapped([*caption, token], options.max_line_length)) > options.max_lines:
        return True
    if (token.end - caption[0].start) * 1000 > _LONGEST_MS:
        return True
    # A caption that is half full ends with its sentence.
    room = options.max_line_length * options.max_lines
    return caption[-1].ends_sentence and 2 * len(_joined(caption)) >= room


def _joined(tokens: Sequence[_Token]) -> str:
    text = "".join(f" {token.text}" if token.has_space_before else token.text for token in tokens)
    return text.removeprefix(" ")


def _wrapped(tokens: Sequence[_Token], width: int) -> list[str]:
    lines: list[str] = []
    for token in tokens:
        glued = (" " if token.has_space_before else "") + token.text
        if lines and len(lines[-1]) + len(glued) <= width:
            lines[-1] += glued
        else:
            lines.append(token.text)
    return lines


def _balanced(tokens: Sequence[_Token], width: int) -> list[str]:
    """The smallest number of lines, of lengths as even as possible."""
    count = len(_wrapped(tokens, width))
    narrowest = bisect_left(range(1, width), True, key=lambda narrower: len(_wrapped(tokens, narrower)) <= count) + 1
    return _wrapped(tokens, narrowest)


def _tokens(utterance: Utterance) -> list[_Token]:
    text = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in utterance.text).split())
    clock = _Clock(utterance, len(text.replace(" ", "")))
    tokens: list[_Token] = []
    position = 0
    for word in text.split():
        for number, piece in enumerate(_pieces(word)):
            end = position + len(piece)
            tokens.append(_Token(piece, number == 0 and bool(tokens), clock.before(position), clock.after(end)))
            position = end
    return tokens


def _pieces(word: str) -> list[str]:
    """Divides a word where a line may break inside of it: between wide characters, as of Chinese and Japanese."""
    pieces: list[str] = []
    for character in word:
        if pieces and not _may_break(pieces[-1][-1], character):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _may_break(before: str, after: str) -> bool:
    if not (_is_wide(before) or _is_wide(after)):
        return False
    # No line begins with closing or modifying characters, and none ends with opening or joining ones.
    return (
        unicodedata.category(after)[0] not in "PMC"
        and unicodedata.category(after) != "Sk"
        and (unicodedata.category(before) not in ("Ps", "Pi", "Cf"))
    )


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


class _Clock:
    """The time of each character of an utterance, white space not counted.

    The times are interpolated inside of each word. If the words do not spell the text, they are interpolated over the
    whole utterance.
    """

    def __init__(self, utterance: Utterance, length: int) -> None:
        words = [("".join(word.word.split()), word.start, word.end) for word in utterance.words]
        if "".join(spelling for spelling, _, _ in words) != "".join(utterance.text.split()):
            words = [("_" * length, utterance.start, utterance.end)]
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._times: list[tuple[float, float]] = []
        position, time = 0, 0.0
        for spelling, start, end in words:
            if spelling:
                start = max(time, start)
                time = max(start, end)
                self._firsts.append(position)
                position += len(spelling)
                self._lasts.append(position)
                self._times.append((start, time))

    def before(self, position: int) -> float:
        """The time at which the character at `position` begins."""
        return self._at(position, bisect_right(self._firsts, position) - 1)

    def after(self, position: int) -> float:
        """The time at which the character before `position` ends."""
        return self._at(position, min(bisect_left(self._lasts, position), len(self._lasts) - 1))

    def _at(self, position: int, word: int) -> float:
        first, last = self._firsts[word], self._lasts[word]
        start, end = self._times[word]
        return start + (end - start) * min(1.0, (position - first) / (last - first))
