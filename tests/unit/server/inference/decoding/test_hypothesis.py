from dataclasses import replace

import pytest

from server.inference.decoding.coverage import Stretch
from server.inference.decoding.hypothesis import Hypothesis

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


def test_text_that_fits_its_time_is_not_repeated() -> None:
    assert SPOKEN.failing is None


@pytest.mark.parametrize("ending", ["loop", "cap"])
def test_text_that_does_not_end_by_itself_is_repeated(ending: str) -> None:
    assert replace(SPOKEN, ending=ending).failing == ending  # type: ignore[arg-type]


def test_too_little_text_for_the_time_is_repeated() -> None:
    assert replace(SPOKEN, seconds=8.7).failing == "sparse"


def test_little_text_in_a_short_utterance_is_not_repeated() -> None:
    assert replace(SPOKEN, tokens=(1,), seconds=2.9).failing is None


def test_text_that_ends_long_before_the_audio_is_repeated() -> None:
    assert replace(SPOKEN, seconds_after_last_timestamp=2.5).failing == "early"
    assert replace(SPOKEN, seconds_after_last_timestamp=1.5).failing is None


def test_text_that_would_be_suppressed_is_repeated() -> None:
    unlikely = replace(SPOKEN, log_probabilities=(-1.0,) * 12, no_speech_probability=0.9)
    assert unlikely.invented == "no_speech"
    assert unlikely.failing == "suppressed"


def test_speech_without_a_text_is_repeated() -> None:
    assert replace(SPOKEN, text="", tokens=(), log_probabilities=(), seconds=1.0).failing == "empty"


def test_unsure_text_with_doubtful_speech_is_repeated() -> None:
    doubted = replace(SPOKEN, no_speech_probability=0.6, log_probabilities=(-0.4,) * 12)
    assert doubted.invented is None
    assert doubted.failing == "no_speech"
    assert replace(doubted, log_probabilities=(-0.1,) * 12).failing is None


def test_text_that_leaves_speech_out_is_repeated() -> None:
    assert replace(SPOKEN, uncovered=Stretch(1.0, 5.0)).failing == "coverage"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ending": "loop"}, "loop"),
        ({"ending": "cap"}, "cap"),
        ({"uncovered": Stretch(1.0, 5.0)}, "coverage"),
        ({"seconds_after_last_timestamp": 2.5}, "early"),
        ({"seconds": 20.0}, None),
        ({"text": "", "tokens": (), "log_probabilities": ()}, None),
    ],
)
def test_defects_that_make_the_full_windows_text_incomplete(change: dict[str, object], reason: str | None) -> None:
    assert replace(SPOKEN, **change).incomplete == reason  # type: ignore[arg-type]


def test_nothing_is_incomplete_without_text_and_speech() -> None:
    silent = replace(SPOKEN, text="", tokens=(), log_probabilities=(), uncovered=Stretch(0.0, 9.0))
    assert silent.incomplete == "coverage"
    assert replace(silent, no_speech_probability=0.8).incomplete is None
