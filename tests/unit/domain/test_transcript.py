"""The stored transcript and the lines of the spool."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from domain.transcript import (
    DocumentVersion,
    TimedWord,
    Utterance,
    WordNames,
    document,
    majority_language,
    utterances_of,
)


def test_the_document_has_the_shape_of_the_contract() -> None:
    finals = [
        Utterance(0.0, 2.5, "Hello world", 0.93, "en", 0.75, (TimedWord("Hello", 0.0, 0.4, 0.98),)),
        Utterance(3.0, 4.0, "¿Qué?", 0.5, "es"),
    ]
    assert json.loads(document("sess_1", "en", 45.6, finals)) == {
        "session_id": "sess_1",
        "language": "en",
        "duration": 45.6,
        "text": "Hello world ¿Qué?",
        "utterances": [
            {
                "start": 0.0,
                "end": 2.5,
                "text": "Hello world",
                "confidence": 0.93,
                "language": "en",
                "language_probability": 0.75,
                "words": [{"word": "Hello", "text": "Hello", "start": 0.0, "end": 0.4, "confidence": 0.98}],
            },
            {
                "start": 3.0,
                "end": 4.0,
                "text": "¿Qué?",
                "confidence": 0.5,
                "language": "es",
                "language_probability": None,
                "words": [],
            },
        ],
    }


def test_a_stored_transcript_is_read_as_it_was_written() -> None:
    finals = [Utterance(0.0, 2.5, "Hello", 0.93, "en", 0.75, (TimedWord("Hello", 0.0, 0.4, 0.98),))]
    assert utterances_of(document("sess_1", "auto", 45.6, finals)) == finals


def test_an_older_transcript_has_the_language_of_the_document() -> None:
    older = (
        b'{"session_id": "sess_1", "language": "en", "duration": 1.0, "text": "Hello", "utterances":'
        b' [{"start": 0.0, "end": 1.0, "text": "Hello", "confidence": 0.9, "words": []}]}'
    )
    assert utterances_of(older) == [Utterance(0.0, 1.0, "Hello", 0.9, "en")]


def test_a_line_of_the_spool_is_read_as_it_was_written() -> None:
    final = Utterance(0.0, 2.5, "Hello", 0.93, "en", 0.75, (TimedWord("Hello", 0.0, 0.4, 0.98),))
    assert Utterance.from_line(final.to_line()) == final


def test_an_older_line_of_the_spool_has_no_probability() -> None:
    older = b'{"start":0.0,"end":1.0,"text":"Hello","confidence":0.9,"language":"en","words":[]}\n'
    assert Utterance.from_line(older) == Utterance(0.0, 1.0, "Hello", 0.9, "en")


def test_a_line_without_a_probability_is_readable_without_the_field() -> None:
    assert b"language_probability" not in Utterance(0.0, 1.0, "one", 1.0, "en").to_line()


def test_the_language_is_the_requested_one_or_that_of_most_words() -> None:
    finals = [Utterance(0, 1, "one", 1, "en"), Utterance(1, 2, "uno", 1, "es"), Utterance(2, 3, "dos tres", 1, "es")]
    assert majority_language("fr", finals) == "fr"
    assert majority_language("auto", finals) == "es"
    assert majority_language("auto", []) == "auto"


def renamed(document: bytes, size: int) -> bytes:
    names = WordNames()
    return b"".join([*(names.push(document[at : at + size]) for at in range(0, len(document), size)), names.finish()])


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(WORDS, max_size=6), st.integers(1, 60))
@example(['{"word": "x", "start": '], 7)
def test_older_documents_get_both_names_of_words_and_newer_ones_stay(words: list[str], size: int) -> None:
    timed = tuple(TimedWord(word, 0.0, 0.4, 0.9) for word in words)
    new = document("sess_0", "en", 1.0, [Utterance(0.0, 1.0, " ".join(words), 0.5, "en", words=timed)])
    shape = json.loads(new)
    for word in shape["utterances"][0]["words"]:
        del word["text"]
    old = json.dumps(shape, ensure_ascii=False).encode()
    assert renamed(old, size) == new
    assert renamed(new, size) == new


def test_the_document_of_a_version_names_it_and_is_otherwise_that_of_a_live_one() -> None:
    finals = [Utterance(0.0, 1.0, "hello", 0.5, "en")]
    live = json.loads(document("sess_1", "en", 2.0, finals))
    named = json.loads(document("sess_1", "en", 2.0, finals, DocumentVersion(2, "accurate", "enhanced")))
    assert named == live | {"version": 2, "model": "accurate", "kind": "enhanced"}
