from dataclasses import replace

import pytest

from server.inference.hypothesis import Hypothesis

SPOKEN = Hypothesis(
    text="he was not an ill-disposed young man",
    tokens=tuple(range(12)),
    log_probabilities=(-0.2,) * 12,
    language="en",
    language_probability=None,
    ending="closed",
    no_speech_probability=0.05,
    seconds=4.0,
)


def test_text_that_fits_its_time_is_not_tried_again() -> None:
    assert SPOKEN.failing is None


@pytest.mark.parametrize("ending", ["loop", "cap"])
def test_text_that_does_not_end_by_itself_is_tried_again(ending: str) -> None:
    assert replace(SPOKEN, ending=ending).failing == ending  # type: ignore[arg-type]


def test_too_little_text_for_the_time_is_tried_again() -> None:
    assert replace(SPOKEN, seconds=8.7).failing == "sparse"


def test_little_text_in_a_short_utterance_is_not_tried_again() -> None:
    assert replace(SPOKEN, tokens=(1,), seconds=2.9).failing is None


def test_little_text_where_there_may_be_no_speech_is_not_tried_again() -> None:
    assert replace(SPOKEN, seconds=8.7, no_speech_probability=0.8).failing is None


def test_text_that_ends_long_before_the_audio_is_tried_again() -> None:
    assert replace(SPOKEN, unheard_seconds=2.5).failing == "early"
    assert replace(SPOKEN, unheard_seconds=1.5).failing is None
    assert replace(SPOKEN, unheard_seconds=2.5, no_speech_probability=0.8).failing is None
    assert replace(SPOKEN, tokens=(), seconds=2.9, unheard_seconds=2.5).failing is None
