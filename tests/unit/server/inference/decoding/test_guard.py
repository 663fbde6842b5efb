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


def test_likely_text_over_speech_is_believed() -> None:
    assert invented(SPOKEN) is None


def test_empty_is_nothing_to_judge() -> None:
    assert invented(replace(SPOKEN, text="", mean_log_probability=-9.0, no_speech_probability=1.0)) is None


def test_a_high_no_speech_probability_alone_does_not_condemn_likely_text() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9, mean_log_probability=-0.1)) is None


def test_unlikely_text_alone_is_believed_where_the_model_is_sure_of_speech() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-1.1)) is None


def test_unlikely_text_without_speech_is_invented() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9, mean_log_probability=-1.1)) == "no_speech"


@pytest.mark.parametrize(
    ("no_speech", "likely_enough", "too_unlikely"), [(0.51, -0.85, -0.95), (0.75, -0.5, -0.6), (0.99, -0.2, -0.25)]
)
def test_the_surer_the_model_is_of_silence_the_likelier_a_text_must_be(
    no_speech: float, likely_enough: float, too_unlikely: float
) -> None:
    silent = replace(SPOKEN, no_speech_probability=no_speech)
    assert invented(replace(silent, mean_log_probability=likely_enough)) is None
    assert invented(replace(silent, mean_log_probability=too_unlikely)) == "no_speech"


def test_a_doubtful_text_that_is_too_little_for_its_time_is_invented() -> None:
    few = replace(SPOKEN, tokens_per_second=0.2)
    assert invented(few) is None
    assert invented(replace(few, mean_log_probability=-1.0)) == "sparse"


def test_very_unlikely_text_is_invented_whatever_else() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-3.0)) == "improbable"


@pytest.mark.parametrize("change", [{"looped": True}, {"mean_log_probability": -1.1}, {"no_speech_probability": 0.55}])
def test_text_in_circles_is_invented_when_something_else_is_wrong_too(change: dict[str, bool | float]) -> None:
    circles = replace(SPOKEN, text="so we go on " * 30, **change)  # type: ignore[arg-type]
    assert invented(circles) == "repetitive"


def test_text_in_circles_that_the_model_is_sure_of_is_believed() -> None:
    assert invented(replace(SPOKEN, text="no, " * 40)) is None


def test_compression_sees_circles_in_any_script() -> None:
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
def test_a_text_whose_beginning_is_a_guess_is_invented_where_speech_is_uncertain(
    no_speech: float, first: float, mean: float, reason: str | None
) -> None:
    guess = replace(SPOKEN, no_speech_probability=no_speech, first_log_probability=first, mean_log_probability=mean)
    assert invented(guess) == reason
