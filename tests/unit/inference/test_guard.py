from dataclasses import replace

import pytest

from server.inference.guard import Evidence, compression_ratio, invented

SPOKEN = Evidence("thank you for calling", mean_log_probability=-0.2, no_speech_probability=0.05, looped=False)


def test_likely_text_over_speech_is_believed() -> None:
    assert invented(SPOKEN) is None


def test_no_text_is_nothing_to_judge() -> None:
    assert invented(replace(SPOKEN, text="", mean_log_probability=-9.0, no_speech_probability=1.0)) is None


def test_a_high_no_speech_probability_alone_does_not_condemn_likely_text() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9)) is None


def test_unlikely_text_alone_is_believed_where_the_model_is_sure_of_speech() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-1.1)) is None


def test_unlikely_text_without_speech_is_invented() -> None:
    assert invented(replace(SPOKEN, no_speech_probability=0.9, mean_log_probability=-1.1)) == "no_speech"


def test_very_unlikely_text_is_invented_whatever_else() -> None:
    assert invented(replace(SPOKEN, mean_log_probability=-3.0)) == "improbable"


@pytest.mark.parametrize("change", [{"looped": True}, {"mean_log_probability": -1.1}])
def test_text_in_circles_is_invented_when_something_else_is_wrong_too(change: dict[str, bool | float]) -> None:
    circles = replace(SPOKEN, text="so we go on " * 30, **change)  # type: ignore[arg-type]
    assert invented(circles) == "repetitive"


def test_text_in_circles_that_the_model_is_sure_of_is_believed() -> None:
    assert invented(replace(SPOKEN, text="no, " * 40)) is None


def test_compression_sees_circles_in_any_script() -> None:
    assert compression_ratio("ご視聴ありがとうございました" * 12) > 2.4
    assert compression_ratio("dieser Satz wiederholt sich nicht") < 1.5
