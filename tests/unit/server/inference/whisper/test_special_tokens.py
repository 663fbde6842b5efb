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


def test_a_multilingual_prompt_names_the_language() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert special_tokens.prompt("de") == [50258, 50261, 50359]
    assert special_tokens.supports("de")
    assert not special_tokens.supports("fr")


def test_an_english_prompt_names_no_language() -> None:
    special_tokens = read_special_tokens(ENGLISH, 51864)
    assert special_tokens.prompt("en") == [50257]
    assert special_tokens.supports("en")
    assert not special_tokens.supports("de")


def test_javanese_has_its_iso_code() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert special_tokens.supports("jv")
    assert not special_tokens.supports("jw")


def test_special_tokens_are_not_among_the_suppressed_text() -> None:
    assert read_special_tokens(MULTILINGUAL, 51865).suppressed == (1, 2)


def test_timestamps_follow_the_other_special_tokens() -> None:
    special_tokens = read_special_tokens(MULTILINGUAL, 51865)
    assert (special_tokens.no_speech, special_tokens.first_timestamp, special_tokens.last_initial_timestamp) == (
        50362,
        50364,
        50414,
    )


def test_a_config_without_its_kind_is_classified_by_size() -> None:
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
