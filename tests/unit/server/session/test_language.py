from server.inference.recognition import Recognition
from server.session.language import SpokenLanguage


def heard(language: str, probability: float | None, text: str = "words") -> Recognition:
    return Recognition(text, language, 0.9, 0.0, None, language_probability=probability)


def after(*recognitions: Recognition) -> str | None:
    spoken = SpokenLanguage()
    for recognition in recognitions:
        spoken.heard(recognition)
    return spoken.expected


def test_at_first_nothing_is_expected() -> None:
    assert after() is None


def test_a_clear_utterance_settles_the_language() -> None:
    assert after(heard("en", 0.9)) == "en"


def test_an_unclear_one_does_not() -> None:
    assert after(heard("en", 0.6)) is None
    assert after(heard("en", 0.9), heard("es", 0.4)) == "en"


def test_another_language_clearly_spoken_is_the_one_from_then_on() -> None:
    assert after(heard("en", 0.9), heard("es", 0.85)) == "es"


def test_what_has_empty_or_was_told_its_language_tells_nothing() -> None:
    assert after(heard("en", 0.9, text=""), heard("es", None)) is None


def test_a_language_that_was_asked_for_is_told_and_any_other_found_out() -> None:
    assert SpokenLanguage("es").told == "es"
    assert SpokenLanguage("auto").told is None
