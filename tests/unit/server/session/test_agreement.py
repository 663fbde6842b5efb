from hypothesis import given
from hypothesis import strategies as st

from server.session.agreement import Agreement


def committed(*passes: str) -> list[str]:
    """The committed prefix after each of the passes."""
    agreement, texts = Agreement(), []
    for text in passes:
        agreement.add_pass(text)
        texts.append(agreement.committed)
    return texts


def test_one_pass_commits_nothing() -> None:
    assert committed("The family of Dashwood") == [""]


def test_a_certain_prefix_of_one_pass_is_committed_at_once() -> None:
    agreement = Agreement()
    assert agreement.add_pass("The family of Dash", certain_prefix="The family")
    assert agreement.committed == "The family"
    assert agreement.add_pass("The family off Dash wood", certain_prefix="The family off Dash")
    assert agreement.committed == "The family off Dash"
    assert not agreement.add_pass("The fan", certain_prefix="The fan"), "it gets no shorter"
    assert agreement.committed == "The family off Dash"


def test_a_first_pass_without_a_certain_prefix_commits_nothing() -> None:
    agreement = Agreement()
    assert not agreement.add_pass("The family")
    assert agreement.committed == ""


def test_a_common_prefix_of_two_passes_in_a_row_is_committed() -> None:
    assert committed("The fan", "The family of", "The family of Dashwood had") == ["", "The", "The family of"]


def test_case_and_punctuation_are_ignored_and_those_of_the_newer_pass_committed() -> None:
    assert committed("the family. Of", "The family of Dash") == ["", "The family of"]


def test_a_full_stop_at_the_end_of_the_audio_is_not_committed() -> None:
    assert committed("The family.", "The family.") == ["", "The family"]
    assert committed("The family. Had", "The family. Had been") == ["", "The family. Had"]


def test_a_pass_that_disagrees_revokes_nothing() -> None:
    assert committed("one two three", "one two three", "nine", "one two three four") == [
        "",
        "one two three",
        "one two three",
        "one two three",
    ]


def test_two_passes_that_agree_on_other_words_correct_the_committed_prefix() -> None:
    assert committed("you saw", "you saw", "use all the", "use all the best")[-1] == "use all the"


def test_scripts_without_spaces_are_committed_by_the_character() -> None:
    assert committed("今日は天", "今日は良い天気") == ["", "今日は"]
    assert committed("สวัสดี", "สวัสดีครับ") == ["", "สวัสดี"]


def test_a_change_is_reported_once() -> None:
    agreement = Agreement()
    assert [agreement.add_pass("one two") for _ in range(4)] == [False, True, False, False]


words = st.lists(st.sampled_from(["a", "b.", "C", "d,"]), max_size=6).map(" ".join)


@given(st.lists(words, max_size=12))
def test_the_committed_prefix_never_shrinks_and_is_in_two_passes(passes: list[str]) -> None:
    agreement, lengths = Agreement(), [0]
    for before, now in zip(["", *passes], passes, strict=False):
        if agreement.add_pass(now):
            spoken = agreement.committed.lower().replace(".", "").replace(",", "").split()
            for text in (before, now):
                assert text.lower().replace(".", "").replace(",", "").split()[: len(spoken)] == spoken
        lengths.append(len(agreement.committed.split()))
    assert lengths == sorted(lengths)
