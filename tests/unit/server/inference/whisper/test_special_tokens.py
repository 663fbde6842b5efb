from typing import Any

import pytest

from server.inference.errors import WeightsError
from server.inference.whisper.special_tokens import read_special_tokens

MULTILINGUAL: dict[str, Any] = {
    "eos_token_id": 50257,
    "decoder_start_token_id": 50258,
    "no_timestamps_token_id": 50363,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 50259, "<|de|>": 50261, "<|jw|>": 50356},
    "task_to_id": {"translate": 50358, "transcribe": 50359},
    "suppress_tokens": [1, 2, 50258],
    "begin_suppress_tokens": [220, 50257],
}
ENGLISH: dict[str, Any] = {
    "eos_token_id": [50256],
    "decoder_start_token_id": 50257,
    "no_timestamps_token_id": 50362,
    "is_multilingual": False,
}


def test_a_multilingual_model_is_asked_for_the_language() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert special_tokens.prompt("de") == [50258, 50261, 50359]
    assert special_tokens.supports("de")
    assert not special_tokens.supports("fr")


def test_an_english_model_knows_english_only_and_is_not_asked() -> None:
    special_tokens = read_special_tokens(ENGLISH, 51864)
    assert special_tokens.prompt("en") == [50257]
    assert special_tokens.supports("en")
    assert not special_tokens.supports("de")


def test_javanese_goes_by_its_iso_code() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert special_tokens.supports("jv")
    assert not special_tokens.supports("jw")


def test_special_tokens_are_not_among_the_suppressed_text() -> None:
    assert read_special_tokens(MULTILINGUAL, 51865).suppressed == (1, 2)


def test_stamps_follow_the_other_special_tokens() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert (special_tokens.no_speech, special_tokens.first_stamp, special_tokens.last_initial_stamp) == (
        50362,
        50364,
        50414,
    )


def test_a_config_that_does_not_say_which_kind_it_is_is_told_by_its_size() -> None:
    silent = {name: value for name, value in MULTILINGUAL.items() if name != "is_multilingual"}
    assert read_special_tokens(silent, 51865).multilingual
    with pytest.raises(WeightsError):
        read_special_tokens({name: value for name, value in silent.items() if name != "lang_to_id"}, 51865)


@pytest.mark.parametrize(
    "change",
    [
        {"no_timestamps_token_id": None},
        {"lang_to_id": None},
        {"task_to_id": {}},
        {"eos_token_id": 60000},
        {"decoder_start_token_id": 99999},
    ],
)
def test_a_generation_config_that_is_not_whispers_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"generation_config\.json"):
        read_special_tokens({**MULTILINGUAL, **change}, 51865)
