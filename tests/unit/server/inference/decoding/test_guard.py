from dataclasses import replace

import pytest

from server.inference.decoding.guard import Evidence, compression_ratio, invented

SPOKEN = Evidence(
    "thank you for calling",
    mean_log_probability=-0.2,
    no_speech_probability=0.05,
    tokens_per_second=3.0,
    looped=False,
)


def test_probable_text_with_speech_is_accepted() -> None:
    assert invented(SPOKEN) is None


def test_empty_text_is_not_judged() -> None:
    assert invented(replace(SPOKEN, text="", mean_log_probability=-9.0, no_speech_probability=1.0)) is None


def test_a_high_no_speech_probability_alone_does_not_suppress_probable_text() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9, mean_log_probability=-0.1)) is None


def test_improbable_text_is_accepted_if_the_model_is_sure_of_speech() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-1.1)) is None


def test_improbable_text_without_speech_is_a_hallucination() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9, mean_log_probability=-1.1)) == "no_speech"


@pytest.mark.parametrize(
    ("no_speech", "likely_enough", "too_unlikely"), [(0.51, -0.85, -0.95), (0.75, -0.5, -0.6), (0.99, -0.2, -0.25)]
)
def test_the_required_probability_rises_with_the_no_speech_probability(
    no_speech: float, likely_enough: float, too_unlikely: float
) -> None:
    silent = replace(SPOKEN, no_speech_probability=no_speech)
    assert invented(replace(silent, mean_log_probability=likely_enough)) is None
    assert invented(replace(silent, mean_log_probability=too_unlikely)) == "no_speech"


def test_a_doubtful_text_too_short_for_its_time_is_a_hallucination() -> None:
    few = replace(SPOKEN, tokens_per_second=0.2)
    assert invented(few) is None
    assert invented(replace(few, mean_log_probability=-1.0)) == "sparse"


def test_very_improbable_text_is_always_a_hallucination() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-3.0)) == "improbable"


@pytest.mark.parametrize("change", [{"looped": True}, {"mean_log_probability": -1.1}, {"no_speech_probability": 0.55}])
def test_repetitive_text_with_another_sign_is_a_hallucination(change: dict[str, bool | float]) -> None:
    repetitive = replace(SPOKEN, text="so we carry on " * 30, **change)  # type: ignore[arg-type]
    assert invented(repetitive) == "repetitive"


def test_repetitive_text_that_the_model_is_sure_of_is_accepted() -> None:
    assert invented(replace(SPOKEN, text="no, " * 40)) is None


def test_compression_detects_repetition_in_any_script() -> None:
    assert compression_ratio("ご視聴ありがとうございました" * 12) > 2.4
    assert compression_ratio("dieser Satz wiederholt sich nicht") < 1.5


@pytest.mark.parametrize(
    ("no_speech", "first", "mean", "reason"),
    [
        (0.45, -3.3, -0.8, "no_speech"),
        (0.57, -3.66, -0.46, "no_speech"),
        (0.45, -2.9, -0.8, None),
        (0.3, -3.3, -0.8, None),
        (0.45, -3.3, -0.3, None),
    ],
)
def test_a_guessed_beginning_with_uncertain_speech_is_a_hallucination(
    no_speech: float, first: float, mean: float, reason: str | None
) -> None:
    guess = replace(SPOKEN, no_speech_probability=no_speech, first_log_probability=first, mean_log_probability=mean)
    assert invented(guess) == reason
