import torch

from server.inference.decoding.generation import TokenChooser
from server.inference.decoding.token_rules import Allowed
from server.inference.whisper.special_tokens import SpecialTokens

SPECIAL_TOKENS = SpecialTokens(
    size=20,
    end=10,
    start=11,
    transcribe=None,
    previous=12,
    no_speech=13,
    first_timestamp=15,
    languages={},
    suppressed=(4,),
    suppressed_first=(5, 10),
    last_initial_timestamp=17,
)
ANYTHING = Allowed(text=True, opens_text=False, end=True, timestamps=range(15, 20))


def choose(scores: dict[int, float], allowed: Allowed = ANYTHING) -> tuple[int, float]:
    logits = torch.zeros(1, 20)
    for token, score in scores.items():
        logits[0, token] = score
    tokens, log_probabilities = TokenChooser(SPECIAL_TOKENS, torch.device("cpu"))(logits, [allowed])
    return tokens[0], log_probabilities[0]


def test_the_likeliest_token_is_chosen() -> None:
    assert choose({7: 9.0, 8: 8.0})[0] == 7


def test_suppressed_and_special_tokens_are_never_chosen() -> None:
    assert choose({4: 30.0, 11: 30.0, 13: 30.0, 14: 30.0, 7: 9.0})[0] == 7


def test_timestamps_that_outweigh_the_best_text_together_win_though_none_does_alone() -> None:
    assert choose({7: 9.0, 16: 8.5, 17: 8.6, 18: 8.4})[0] == 17


def test_only_allowed_timestamps_count_and_are_chosen() -> None:
    late = Allowed(text=True, opens_text=False, end=True, timestamps=range(18, 20))
    assert choose({7: 1.0, 15: 30.0, 18: 9.0}, late)[0] == 18


def test_without_text_and_end_a_timestamp_is_chosen() -> None:
    opening = Allowed(text=False, opens_text=False, end=False, timestamps=range(15, 18))
    assert choose({7: 30.0, 10: 30.0, 16: 1.0}, opening)[0] == 16


def test_text_does_not_begin_with_an_excluded_token() -> None:
    first = Allowed(text=True, opens_text=True, end=True, timestamps=range(0))
    assert choose({5: 30.0, 10: 30.0, 15: 30.0, 7: 9.0}, first)[0] == 7


def test_the_probability_is_relative_to_allowed_tokens() -> None:
    only_two = Allowed(text=False, opens_text=False, end=True, timestamps=range(15, 16))
    token, log_probability = choose({10: 2.0, 15: 1.0, 7: 30.0}, only_two)
    assert token == 10
    assert abs(log_probability - torch.tensor([2.0, 1.0]).log_softmax(0)[0].item()) < 1e-5
