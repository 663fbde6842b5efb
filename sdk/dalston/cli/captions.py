"""Captions of finals as they come: SubRip and WebVTT. Pure.

What is stored can be exported by the service, which knows more: `dalston sessions export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from textwrap import wrap

from dalston.cli import safe_text
from dalston.events import FinalResult

_LINE = 42
"""Characters of a line, two of which make a caption: what subtitlers hold to."""
_LINES = 2
_WORD_JOINER = "\u2060"


class Captions:
    """Numbers what it is given.

    Args:
        is_vtt: WebVTT, else SubRip.
    """

    def __init__(self, *, is_vtt: bool) -> None:
        self._is_vtt = is_vtt
        self._number = 0

    def begin(self) -> str:
        """What comes before the first caption."""
        return "WEBVTT\n\n" if self._is_vtt else ""

    def push(self, final: FinalResult) -> str:
        """The captions of an utterance. Its time is shared out among them by their characters."""
        return "".join(self._cue(start, end, lines) for start, end, lines in _split(final))

    def _cue(self, start: float, end: float, lines: list[str]) -> str:
        self._number += 1
        times = f"{_time(start)} --> {_time(end)}"
        if self._is_vtt:
            text = "\n".join(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines)
            return f"{times}\n{text}\n\n"
        return f"{self._number}\n{times.replace('.', ',')}\n" + "\n".join(map(_apart, lines)) + "\n\n"


def _split(final: FinalResult) -> Iterator[tuple[float, float, list[str]]]:
    lines = wrap(safe_text.line(final.text), _LINE)
    captions = [list(lines[first : first + _LINES]) for first in range(0, len(lines), _LINES)]
    whole = sum(map(len, lines))
    done, ends = 0, [final.start]
    for caption in captions:
        done += sum(map(len, caption))
        ends.append(final.start + (final.end - final.start) * done / whole)
    for (start, end), caption in zip(pairwise(ends), captions, strict=True):
        yield start, end, caption


def _apart(line: str) -> str:
    """SubRip has no escapes: an invisible character keeps apart what a player might take for markup or times."""
    for opening in ("<", "{"):
        line = line.replace(opening, opening + _WORD_JOINER)
    return line.replace("-->", f"--{_WORD_JOINER}>")


def _time(seconds: float) -> str:
    rest, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{milliseconds:03}"
