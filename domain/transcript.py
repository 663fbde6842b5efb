"""The stored transcript and the lines it is made from: pure."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of an utterance; times in seconds from the session's first byte."""

    word: str
    start: float
    end: float
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """The word as documents have it: `text` is the same under the name that other Dalston services use."""
        return {
            "word": self.word,
            "text": self.word,
            "start": self.start,
            "end": self.end,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True)
class Utterance:
    """A final as it was sent to the client."""

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
        """Words between white space, as the row counts them."""
        return len(self.text.split())

    def moved(self, seconds: float) -> "Utterance":
        """The same utterance so much later."""

        def later(time: float) -> float:
            # A microsecond is less than a sample: what is rounded off is the sum's own error.
            return round(time + seconds, 6)

        words = tuple(replace(word, start=later(word.start), end=later(word.end)) for word in self.words)
        return replace(self, start=later(self.start), end=later(self.end), words=words)

    def to_line(self) -> bytes:
        """One line of JSON with its line break."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Utterance":
        """Reads what `to_line` wrote.

        Raises:
            ValueError: it did not.
        """
        try:
            fields = json.loads(line)
            return cls(**{**fields, "words": tuple(TimedWord(**word) for word in fields["words"])})
        except (TypeError, KeyError) as error:
            raise ValueError("not the line of an utterance") from error


def whole_lines(data: bytes) -> Iterable[Utterance]:
    """The utterances of an append-only file; a line torn by a crash ends it."""
    for line in data.split(b"\n")[:-1]:
        try:
            yield Utterance.from_line(line)
        except ValueError:
            return


def majority_language(asked: str, utterances: Iterable[Utterance]) -> str:
    """The language asked for; under `auto`, the one most words are in, or `auto` while there is none."""
    words: Counter[str] = Counter()
    for utterance in utterances:
        words[utterance.language] += utterance.word_count
    return most_spoken(asked, words)


def most_spoken(asked: str, words: Counter[str]) -> str:
    """`majority_language` from words per language."""
    if asked != "auto" or not words:
        return asked
    return words.most_common(1)[0][0]


class WordNames:
    """Gives the words of a document `text` beside `word`: documents that were stored before have `word` alone.

    A document is not read for that. What stands before the place of a name is as `json.dumps` writes it, and inside a
    text no quotation mark is without its backslash, so no text looks like it.
    """

    _OLD = re.compile(rb'\{"word": ("(?:[^"\\]|\\.)*"), "start": ')
    _NEW = rb'{"word": \1, "text": \1, "start": '
    _LONGEST = 4096
    """No word is so long: it is a part of an utterance of 28 s."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, chunk: bytes) -> bytes:
        """The next bytes of the document, as far as it is certain what they are."""
        held = self._OLD.sub(self._NEW, self._rest + chunk)
        # The last word may go on in the next chunk.
        begin = held.rfind(b'{"word": ', max(0, len(held) - self._LONGEST))
        split = begin if begin >= 0 else max(0, len(held) - len(b'{"word": ') + 1)
        self._rest = held[split:]
        return held[:split]

    def finish(self) -> bytes:
        """What was held back."""
        rest, self._rest = self._rest, b""
        return rest


def document(session_id: str, language: str, duration: float, utterances: Iterable[Utterance]) -> bytes:
    """The stored transcript, UTF-8 JSON in the shape shared by live sessions and batch jobs; `duration` in seconds."""
    said = list(utterances)
    shape: dict[str, Any] = {
        "session_id": session_id,
        "language": language,
        "duration": duration,
        "text": " ".join(utterance.text for utterance in said),
        "utterances": [
            {
                "start": utterance.start,
                "end": utterance.end,
                "text": utterance.text,
                "confidence": utterance.confidence,
                "words": [word.to_json() for word in utterance.words],
            }
            for utterance in said
        ],
    }
    return json.dumps(shape, ensure_ascii=False).encode()


def utterances_of(body: bytes) -> list[Utterance]:
    """The utterances of what `document` wrote; the document knows one language for all of them.

    Raises:
        ValueError: it did not.
    """
    try:
        shape = json.loads(body)
        return [
            Utterance(
                each["start"],
                each["end"],
                each["text"],
                each["confidence"],
                shape["language"],
                words=tuple(
                    TimedWord(word["word"], word["start"], word["end"], word["confidence"]) for word in each["words"]
                ),
            )
            for each in shape["utterances"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a stored transcript") from error
