"""The finals of a session, the lines of the spool that hold them, and the stored transcript made of them. Pure."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of an utterance; times in seconds from the session's first byte."""

    word: str
    start: float
    end: float
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """The word as documents contain it. Other Dalston services name it `text`."""
        return {
            "word": self.word,
            "text": self.word,
            "start": self.start,
            "end": self.end,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True)
class Utterance:
    """A final as it was sent to the client; times in seconds from the session's first byte."""

    start: float
    end: float
    text: str
    confidence: float
    language: str
    """ISO 639-1."""
    language_probability: float | None = None
    """None where the client requested the language, and where it was not stored."""
    words: tuple[TimedWord, ...] = ()

    @property
    def word_count(self) -> int:
        """Words separated by white space: what `word_count` of a session counts."""
        return len(self.text.split())

    def moved(self, seconds: float) -> "Utterance":
        """The same utterance with later times."""

        def later(time: float) -> float:
            # A microsecond is less than a sample: rounding removes the error of the addition only.
            return round(time + seconds, 6)

        words = tuple(replace(word, start=later(word.start), end=later(word.end)) for word in self.words)
        return replace(self, start=later(self.start), end=later(self.end), words=words)

    def to_json(self) -> dict[str, Any]:
        """The utterance as documents contain it."""
        # Written out, because `asdict` copies all words.
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "confidence": self.confidence,
            "language": self.language,
            "language_probability": self.language_probability,
            "words": [word.to_json() for word in self.words],
        }

    def to_line(self) -> bytes:
        """One line of JSON with its line break; without `language_probability` if there is none."""
        fields = asdict(self)
        if self.language_probability is None:
            del fields["language_probability"]
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Utterance":
        """Reads a line of `to_line`.

        Raises:
            ValueError: it is not such a line.
        """
        try:
            fields = json.loads(line)
            return cls(**{**fields, "words": tuple(TimedWord(**word) for word in fields["words"])})
        except (TypeError, KeyError) as error:
            raise ValueError("not the line of an utterance") from error


def whole_lines(data: bytes) -> Iterable[Utterance]:
    """The utterances of an append-only file, up to a line that a crash has truncated."""
    for line in data.split(b"\n")[:-1]:
        try:
            yield Utterance.from_line(line)
        except ValueError:
            return


def majority_language(requested: str, utterances: Iterable[Utterance]) -> str:
    """The requested language; for `auto`, the language of most words, or `auto` while there are none."""
    words: Counter[str] = Counter()
    for utterance in utterances:
        words[utterance.language] += utterance.word_count
    return most_spoken(requested, words)


def most_spoken(requested: str, words: Counter[str]) -> str:
    """`majority_language` from the number of words in each language."""
    if requested != "auto" or not words:
        return requested
    return words.most_common(1)[0][0]


class WordNames:
    """Adds `text` to the words of a document that has only `word`, as older documents do.

    The document is not parsed. `json.dumps` writes a word's key always in the same way, and inside a JSON string every
    quotation mark has a backslash before it, so that no text can look like such a key.
    """

    _OLD = re.compile(rb'\{"word": ("(?:[^"\\]|\\.)*"), "start": ')
    _NEW = rb'{"word": \1, "text": \1, "start": '
    _LONGEST = 4096
    """No word is longer: it is a part of an utterance of 28 s."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, chunk: bytes) -> bytes:
        """Takes the next bytes of the document; returns those that are complete."""
        held = self._OLD.sub(self._NEW, self._rest + chunk)
        # The last word may continue in the next chunk.
        begin = held.rfind(b'{"word": ', max(0, len(held) - self._LONGEST))
        split = begin if begin >= 0 else max(0, len(held) - len(b'{"word": ') + 1)
        self._rest = held[split:]
        return held[:split]

    def finish(self) -> bytes:
        """Returns the rest of the document."""
        rest, self._rest = self._rest, b""
        return rest


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """What the document of a version states about the version. The document of a live transcript does not have it."""

    version: int
    model: str
    kind: Literal["enhanced", "upload"]

    def to_json(self) -> dict[str, Any]:
        """The keys and values as documents contain them."""
        return {"version": self.version, "model": self.model, "kind": self.kind}


def document(
    session_id: str,
    language: str,
    duration: float,
    utterances: Iterable[Utterance],
    version: DocumentVersion | None = None,
) -> bytes:
    """The stored transcript: UTF-8 JSON in the shape that live sessions and batch jobs share.

    Args:
        duration: the length of the audio, in seconds.
        version: of a transcript that a batch job made; None for a live one.
    """
    finals = list(utterances)
    shape: dict[str, Any] = {
        "session_id": session_id,
        "language": language,
        "duration": duration,
        **({} if version is None else version.to_json()),
        "text": " ".join(utterance.text for utterance in finals),
        "utterances": [utterance.to_json() for utterance in finals],
    }
    return json.dumps(shape, ensure_ascii=False).encode()


def utterances_of(body: bytes) -> list[Utterance]:
    """The utterances of a stored transcript. Those of older ones have the language of the document.

    Raises:
        ValueError: it is not a stored transcript.
    """
    try:
        shape = json.loads(body)
        return [
            Utterance(
                start=each["start"],
                end=each["end"],
                text=each["text"],
                confidence=each["confidence"],
                language=each.get("language", shape["language"]),
                language_probability=each.get("language_probability"),
                words=tuple(
                    TimedWord(word=word["word"], start=word["start"], end=word["end"], confidence=word["confidence"])
                    for word in each["words"]
                ),
            )
            for each in shape["utterances"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a stored transcript") from error
