"""The stored transcript's shape."""

import json

from persistence.transcript import TimedWord, Utterance, document, majority_language


def test_the_document_has_the_shape_of_the_contract() -> None:
    said = [
        Utterance(0.0, 2.5, "Hello world", 0.93, "en", (TimedWord("Hello", 0.0, 0.4, 0.98),)),
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
                "words": [{"word": "Hello", "start": 0.0, "end": 0.4, "confidence": 0.98}],
            },
            {"start": 3.0, "end": 4.0, "text": "¿Qué?", "confidence": 0.5, "words": []},
        ],
    }


def test_the_language_is_the_one_asked_for_or_that_of_most_words() -> None:
    said = [Utterance(0, 1, "one", 1, "en"), Utterance(1, 2, "uno", 1, "es"), Utterance(2, 3, "dos tres", 1, "es")]
    assert majority_language("fr", said) == "fr"
    assert majority_language("auto", said) == "es"
    assert majority_language("auto", []) == "auto"
