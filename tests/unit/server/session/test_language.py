from server.inference.recognition import Recognition
from server.session.language import SpokenLanguage


def recognised(language: str, probability: float | None, text: str = "words") -> Recognition:
    return Recognition(text, language, 0.9, 0.0, None, language_probability=probability)


def after(*recognitions: Recognition) -> str | None:
    spoken = SpokenLanguage()
    for recognition in recognitions:
        spoken.update(recognition)
    return spoken.expected


def test_no_language_is_expected_at_first() -> None:
    assert after() is None


def test_a_clear_utterance_determines_the_expected_language() -> None:
    assert after(recognised("en", 0.9)) == "en"


def test_an_unclear_utterance_does_not_change_the_expected_language() -> None:
    assert after(recognised("en", 0.6)) is None
    assert after(recognised("en", 0.9), recognised("es", 0.4)) == "en"


def test_a_clear_utterance_in_another_language_replaces_the_expected_one() -> None:
    assert after(recognised("en", 0.9), recognised("es", 0.85)) == "es"


def test_an_empty_text_or_a_requested_language_changes_nothing() -> None:
    assert after(recognised("en", 0.9, text=""), recognised("es", None)) is None


def test_a_language_is_requested_or_to_be_detected() -> None:
    assert SpokenLanguage("es").requested == "es"
    assert SpokenLanguage("auto").requested is None
