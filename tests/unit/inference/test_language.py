from server.inference.language import Detected, detected

CHANCES = {"en": 0.3, "es": 0.65, "fr": 0.05}


def test_the_likeliest_language_is_detected() -> None:
    assert detected(CHANCES) == Detected("es", 0.65)


def test_the_expected_language_stays_unless_another_is_sure() -> None:
    assert detected(CHANCES, "en") == Detected("en", 0.3)
    assert detected({"en": 0.15, "es": 0.85}, "en") == Detected("es", 0.85)


def test_an_expected_language_that_the_model_does_not_know_counts_for_nothing() -> None:
    assert detected(CHANCES, "tlh") == Detected("es", 0.65)
