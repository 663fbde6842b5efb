"""The export formats of a transcript, written utterance by utterance. Pure."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from domain.captions import Caption, Captioner, CaptionOptions
from domain.transcript import DocumentVersion, Utterance


class Renderer(ABC):
    """Writes one document: call `begin`, then `push` for each utterance in order, then `end`."""

    content_type: str

    def begin(self) -> str:
        """The text before the first utterance."""
        return ""

    @abstractmethod
    def push(self, utterance: Utterance) -> str:
        """The text of an utterance."""

    def end(self) -> str:
        """The text after the last utterance."""
        return ""


class TextRenderer(Renderer):
    """Plain text, one line for each utterance."""

    content_type = "text/plain; charset=utf-8"

    def push(self, utterance: Utterance) -> str:
        text = " ".join(utterance.text.split())
        return f"{text}\n" if text else ""


class _CaptionRenderer(Renderer):
    def __init__(self, options: CaptionOptions) -> None:
        self._captioner = Captioner(options)

    def push(self, utterance: Utterance) -> str:
        return self._write(self._captioner.push(utterance))

    def end(self) -> str:
        return self._write(self._captioner.finish())

    def _write(self, captions: Iterable[Caption]) -> str:
        return "".join(map(self.cue, captions))

    @abstractmethod
    def cue(self, caption: Caption) -> str:
        """A caption in the format, with the blank line after it."""


class SrtRenderer(_CaptionRenderer):
    """SubRip. It has no escapes: an invisible character separates text that a player could parse as markup or times."""

    content_type = "application/x-subrip"

    def __init__(self, options: CaptionOptions) -> None:
        super().__init__(options)
        self._number = 0

    def cue(self, caption: Caption) -> str:
        self._number += 1
        text = "\n".join(_apart(line) for line in caption.lines)
        return f"{self._number}\n{_srt_time(caption.start_ms)} --> {_srt_time(caption.end_ms)}\n{text}\n\n"


class VttRenderer(_CaptionRenderer):
    """WebVTT."""

    content_type = "text/vtt"

    def begin(self) -> str:
        return "WEBVTT\n\n"

    def cue(self, caption: Caption) -> str:
        text = "\n".join(_escaped(line) for line in caption.lines)
        return f"{_vtt_time(caption.start_ms)} --> {_vtt_time(caption.end_ms)}\n{text}\n\n"


class JsonRenderer(Renderer):
    """The document of the stored transcript. Its text is after its utterances, which are not kept in memory."""

    content_type = "application/json"

    def __init__(self, session_id: str, language: str, duration: float, version: DocumentVersion | None = None) -> None:
        named = {} if version is None else version.to_json()
        self._head = {"session_id": session_id, "language": language, "duration": duration, **named}
        self._texts: list[str] = []

    def begin(self) -> str:
        return json.dumps(self._head, ensure_ascii=False)[:-1] + ', "utterances": ['

    def push(self, utterance: Utterance) -> str:
        separator = ", " if self._texts else ""
        self._texts.append(utterance.text)
        return separator + json.dumps(utterance.to_json(), ensure_ascii=False)

    def end(self) -> str:
        return f'], "text": {json.dumps(" ".join(self._texts), ensure_ascii=False)}}}'


FORMATS: Final = ("txt", "srt", "vtt", "json")

_WORD_JOINER = "\u2060"


def _apart(line: str) -> str:
    for opening in ("<", "{"):
        line = line.replace(opening, opening + _WORD_JOINER)
    return line.replace("-->", f"--{_WORD_JOINER}>")


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_time(milliseconds: int) -> str:
    return _vtt_time(milliseconds).replace(".", ",")


def _vtt_time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
