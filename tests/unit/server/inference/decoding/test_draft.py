from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.draft import AT_ONCE, Draft

TOKENS = st.lists(st.integers(0, 4), max_size=60)


def steps(draft: Sequence[int], text: Sequence[int]) -> tuple[int, int]:
    """Decodes `text` with a draft, one token beyond the right ones per step. Returns the steps and the right tokens."""
    following, decoded, count, right = Draft(draft), 0, 0, 0
    while decoded < len(text):
        drafted = following.after(text[:decoded])
        assert len(drafted) <= AT_ONCE
        good = next(
            (n for n, token in enumerate(drafted) if text[decoded + n : decoded + n + 1] != [token]), len(drafted)
        )
        decoded, count, right = decoded + good + 1, count + 1, right + good
    return count, right


@given(draft=TOKENS, text=TOKENS)
def test_no_more_tokens_are_right_than_the_draft_has(draft: list[int], text: list[int]) -> None:
    count, right = steps(draft, text)
    assert right <= len(draft)
    assert count <= len(text)


def test_a_right_draft_is_checked_sixteen_tokens_at_a_time() -> None:
    text = list(range(100))
    assert steps(text, text)[0] == 6


def test_a_replaced_token_costs_one_step() -> None:
    text = list(range(30))
    assert steps([*text[:10], 99, *text[11:]], text)[0] == 1 + steps(text, text)[0]


def test_extra_and_missing_tokens_cost_few_steps() -> None:
    text = list(range(30))
    assert steps([*text[:10], *text[13:]], text)[0] <= 5
    assert steps([*text[:10], 97, 98, *text[10:]], text)[0] <= 5


def test_a_draft_that_does_not_match_is_dropped() -> None:
    following = Draft(range(50, 100))
    assert [len(following.after(range(count))) for count in range(5)] == [16, 16, 16, 0, 0]
    assert list(following.after([0, 1, 2, 3, 4, 51]))[:2] == [52, 53], "it is found again"
