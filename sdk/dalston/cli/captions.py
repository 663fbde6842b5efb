"""Captions of finals as they arrive: SubRip and WebVTT. Pure.

The service exports stored transcripts with more options: `dalston sessions export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from textwrap import wrap

from dalston.cli import safe_text
from dalston.events import FinalResult

_LINE = 42
"""Characters per line and lines per caption, as is common for subtitles."""
_LINES = 2
_WORD_JOINER = "\u2060"


class Captions:
    """Renders and numbers captions.

    Args:
        is_vtt: whether to write WebVTT instead of SubRip.
    """

    def __init__(self, *, is_vtt: bool) -> None:
        self._is_vtt = is_vtt
        self._number = 0

    def begin(self) -> str:
        """The header of the file."""
        return "WEBVTT\n\n" if self._is_vtt else ""

    def push(self, final: FinalResult) -> str:
        """The captions of an utterance. Each takes a share of its time by the number of characters."""
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
    """Separates what a player might take for markup or times with an invisible character; SubRip has no escapes."""
    for opening in ("<", "{"):
        line = line.replace(opening, opening + _WORD_JOINER)
    return line.replace("-->", f"--{_WORD_JOINER}>")


def _time(seconds: float) -> str:
    rest, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{milliseconds:03}"
