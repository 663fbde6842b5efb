from server.inference.recognition import Word
from server.rpc.responses import response_of
from server.session.events import Final


def test_a_final_says_how_likely_its_language_is_where_it_was_detected() -> None:
    told, detected = (Final("Oh.", 1.0, 2.0, 0.9, "en", language_probability=chance) for chance in (None, 0.75))
    assert not response_of(told, "sess_0").final.HasField("language_probability")
    assert response_of(detected, "sess_0").final.language_probability == 0.75


def test_a_final_carries_its_words() -> None:
    event = Final("Oh dear.", 1.0, 2.0, 0.9, "en", words=(Word("Oh", 1.1, 1.25, 0.8), Word("dear.", 1.25, 1.75, 0.95)))
    final = response_of(event, "sess_0").final
    assert [(word.word, word.start, word.end, word.confidence) for word in final.words] == [
        ("Oh", 1.1, 1.25, 0.8),
        ("dear.", 1.25, 1.75, 0.95),
    ]
