from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.draft import AT_ONCE, Draft

TOKENS = st.lists(st.integers(0, 4), max_size=60)


def steps(draft: Sequence[int], text: Sequence[int]) -> tuple[int, int]:
    """Writes `text`, each time as far as what is read ahead is right and one token more: steps, and tokens right."""
    following, written, count, right = Draft(draft), 0, 0, 0
    while written < len(text):
        bulk = following.after(text[:written])
        assert len(bulk) <= AT_ONCE
        good = next((n for n, token in enumerate(bulk) if text[written + n : written + n + 1] != [token]), len(bulk))
        written, count, right = written + good + 1, count + 1, right + good
    return count, right


@given(draft=TOKENS, text=TOKENS)
def test_whatever_the_draft_no_more_of_it_is_right_than_it_has(draft: list[int], text: list[int]) -> None:
    count, right = steps(draft, text)
    assert right <= len(draft)
    assert count <= len(text)


def test_a_right_draft_is_read_sixteen_at_a_time() -> None:
    text = list(range(100))
    assert steps(text, text)[0] == 6


def test_another_token_in_the_place_of_one_costs_one_step() -> None:
    text = list(range(30))
    assert steps([*text[:10], 99, *text[11:]], text)[0] == 1 + steps(text, text)[0]


def test_a_token_too_many_and_some_that_are_missing_cost_few_steps() -> None:
    text = list(range(30))
    assert steps([*text[:10], *text[13:]], text)[0] <= 5
    assert steps([*text[:10], 97, 98, *text[10:]], text)[0] <= 5


def test_a_draft_of_something_else_is_let_go() -> None:
    following = Draft(range(50, 100))
    assert [len(following.after(range(count))) for count in range(5)] == [16, 16, 16, 0, 0]
    assert list(following.after([0, 1, 2, 3, 4, 51]))[:2] == [52, 53], "it is found again"
