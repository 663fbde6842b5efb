from server.inference.decoding.language import Detected, detected

CHANCES = {"en": 0.3, "es": 0.65, "fr": 0.05}


def test_the_likeliest_language_is_detected() -> None:
    assert detected(CHANCES) == Detected("es", 0.65)


def test_the_expected_language_is_kept_unless_another_is_sure() -> None:
    assert detected(CHANCES, "en") == Detected("en", 0.3)
    assert detected({"en": 0.15, "es": 0.85}, "en") == Detected("es", 0.85)


def test_an_expected_language_unknown_to_the_model_is_ignored() -> None:
    assert detected(CHANCES, "tlh") == Detected("es", 0.65)


ODD = {"en": 0.1, "es": 0.25, "ar": 0.2, "ta": 0.45}
LIKELY = ("en", "es", "ar")


def test_an_unclear_word_is_assumed_to_be_in_a_common_language() -> None:
    assert detected(ODD, likely=LIKELY, seconds=1.0) == Detected("es", 0.25)


def test_a_rare_language_is_accepted_if_sure_or_longer() -> None:
    sure = {"en": 0.1, "es": 0.1, "ta": 0.8}
    assert detected(sure, likely=LIKELY, seconds=1.0).language == "ta"
    assert detected(ODD, likely=LIKELY, seconds=3.0).language == "ta"


def test_an_expected_rare_language_is_kept() -> None:
    assert detected(ODD | {"ta": 0.2}, expected="ta", likely=LIKELY, seconds=1.0).language == "ta"
