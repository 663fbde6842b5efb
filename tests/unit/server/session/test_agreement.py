from hypothesis import given
from hypothesis import strategies as st

from server.session.agreement import Agreement


def told(*tries: str) -> list[str]:
    """What is told after each of the tries."""
    agreement, texts = Agreement(), []
    for text in tries:
        agreement.hear(text)
        texts.append(agreement.text)
    return texts


def test_what_one_try_says_is_not_told() -> None:
    assert told("The family of Dashwood") == [""]


def test_what_one_try_is_certain_of_is_told_at_once() -> None:
    agreement = Agreement()
    assert agreement.hear("The family of Dash", certain="The family")
    assert agreement.text == "The family"
    assert agreement.hear("The family off Dash wood", certain="The family off Dash")
    assert agreement.text == "The family off Dash"
    assert not agreement.hear("The fan", certain="The fan"), "it gets no shorter"
    assert agreement.text == "The family off Dash"


def test_nothing_is_told_of_a_first_try_that_is_certain_of_nothing() -> None:
    agreement = Agreement()
    assert not agreement.hear("The family")
    assert agreement.text == ""


def test_what_two_tries_in_a_row_begin_with_is_told() -> None:
    assert told("The fan", "The family of", "The family of Dashwood had") == ["", "The", "The family of"]


def test_case_and_punctuation_are_no_disagreement_and_the_newer_is_told() -> None:
    assert told("the family. Of", "The family of Dash") == ["", "The family of"]


def test_the_full_stop_at_the_end_of_what_was_heard_is_not_told() -> None:
    assert told("The family.", "The family.") == ["", "The family"]
    assert told("The family. Had", "The family. Had been") == ["", "The family. Had"]


def test_a_try_that_disagrees_takes_nothing_back() -> None:
    assert told("one two three", "one two three", "nine", "one two three four") == [
        "",
        "one two three",
        "one two three",
        "one two three",
    ]


def test_two_tries_that_agree_on_other_words_correct_what_was_told() -> None:
    assert told("you saw", "you saw", "use all the", "use all the best")[-1] == "use all the"


def test_scripts_without_spaces_are_told_by_the_character() -> None:
    assert told("今日は天", "今日は良い天気") == ["", "今日は"]
    assert told("สวัสดี", "สวัสดีครับ") == ["", "สวัสดี"]


def test_a_change_is_reported_once() -> None:
    agreement = Agreement()
    assert [agreement.hear("one two") for _ in range(4)] == [False, True, False, False]


words = st.lists(st.sampled_from(["a", "b.", "C", "d,"]), max_size=6).map(" ".join)


@given(st.lists(words, max_size=12))
def test_what_is_told_never_gets_shorter_and_two_tries_said_it(tries: list[str]) -> None:
    agreement, lengths = Agreement(), [0]
    for before, now in zip(["", *tries], tries, strict=False):
        if agreement.hear(now):
            spoken = agreement.text.lower().replace(".", "").replace(",", "").split()
            for text in (before, now):
                assert text.lower().replace(".", "").replace(",", "").split()[: len(spoken)] == spoken
        lengths.append(len(agreement.text.split()))
    assert lengths == sorted(lengths)
