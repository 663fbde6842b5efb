"""The stored transcript's shape."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from domain.transcript import TimedWord, Utterance, WordNames, document, majority_language


def test_the_document_has_the_shape_of_the_contract() -> None:
    said = [
        Utterance(0.0, 2.5, "Hello world", 0.93, "en", words=(TimedWord("Hello", 0.0, 0.4, 0.98),)),
        Utterance(3.0, 4.0, "¿Qué?", 0.5, "es"),
    ]
    assert json.loads(document("sess_1", "en", 45.6, said)) == {
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
                "words": [{"word": "Hello", "text": "Hello", "start": 0.0, "end": 0.4, "confidence": 0.98}],
            },
            {"start": 3.0, "end": 4.0, "text": "¿Qué?", "confidence": 0.5, "words": []},
        ],
    }


def test_the_language_is_the_one_asked_for_or_that_of_most_words() -> None:
    said = [Utterance(0, 1, "one", 1, "en"), Utterance(1, 2, "uno", 1, "es"), Utterance(2, 3, "dos tres", 1, "es")]
    assert majority_language("fr", said) == "fr"
    assert majority_language("auto", said) == "es"
    assert majority_language("auto", []) == "auto"


def renamed(document: bytes, size: int) -> bytes:
    names = WordNames()
    return b"".join([*(names.push(document[at : at + size]) for at in range(0, len(document), size)), names.finish()])


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(WORDS, max_size=6), st.integers(1, 60))
@example(['{"word": "x", "start": '], 7)
def test_a_document_that_was_stored_before_gets_both_names_and_a_new_one_stays_as_it_is(
    words: list[str], size: int
) -> None:
    timed = tuple(TimedWord(word, 0.0, 0.4, 0.9) for word in words)
    said = [Utterance(0.0, 1.0, " ".join(words), 0.5, "en", words=timed)]
    new = document("sess_0", "en", 1.0, said)
    shape = json.loads(new)
    for word in shape["utterances"][0]["words"]:
        del word["text"]
    old = json.dumps(shape, ensure_ascii=False).encode()
    assert renamed(old, size) == new
    assert renamed(new, size) == new
