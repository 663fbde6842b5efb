import pytest

from server.inference.decoding.bias_terms import prompt_tokens, terms_alone, within_one


def encode(text: str) -> list[int]:
    """One token a character."""
    return [ord(character) for character in text]


def prompt(terms: list[str], room: int = 224) -> str:
    return "".join(map(chr, prompt_tokens(terms, encode, room)))


def test_terms_are_a_list_that_is_said_to_be_one() -> None:
    assert prompt(["Dashwood", "Norland Park"]) == " Glossary: Dashwood, Norland Park."


def test_what_does_not_fit_is_left_out_whole_from_the_end() -> None:
    assert prompt(["Dashwood", "Norland Park", "Sussex"], room=30) == " Glossary: Dashwood."
    assert prompt(["Dashwood"], room=19) == ""


def test_a_term_that_would_not_fit_alone_keeps_out_none_after_it() -> None:
    long = "Hertfordshire " * 3
    assert prompt([long, "Dashwood", long, "Norland Park"], room=40) == " Glossary: Dashwood, Norland Park."
    assert prompt([long], room=40) == ""


def test_a_term_for_which_there_is_no_room_left_keeps_out_those_that_matter_less() -> None:
    assert prompt(["Dashwood", "Norland Park", "Ann"], room=30) == " Glossary: Dashwood."


def test_terms_of_white_space_are_passed_over_and_line_breaks_are_spaces() -> None:
    assert prompt([" \n", "Norland\n Park", "\t", "Sussex"]) == " Glossary: Norland Park, Sussex."


def test_without_terms_there_is_no_prompt() -> None:
    assert prompt([]) == prompt([" "]) == ""


TERMS = ["Dashwood", "Norland Park", "東京"]


@pytest.mark.parametrize(
    "text",
    [
        "Dashwood",
        "dashwood.",
        "Norland",
        "Norland Park, Dashwood!",
        "Park Norland Park",
        "東京、東京",
        "Glossary: Norland.",
    ],
)
def test_a_text_of_the_terms_words_alone_is_made_of_terms(text: str) -> None:
    assert terms_alone(text, TERMS)


@pytest.mark.parametrize("text", ["Mr. Dashwood", "Norland Park is old", "Parks", "", "..."])
def test_a_text_with_another_word_or_none_is_not(text: str) -> None:
    assert not terms_alone(text, TERMS)


@pytest.mark.parametrize(
    ("text", "within"),
    [("Dashwood.", True), ("Norland", True), ("norland park", True), ("Park Norland", False), ("Park Dashwood", False)],
)
def test_one_term_or_a_part_of_it_is_told_from_a_list(text: str, within: bool) -> None:
    assert within_one(text, TERMS) is within


def test_without_terms_nothing_is_made_of_them() -> None:
    assert not terms_alone("anything", [])
    assert not terms_alone("anything", ["--"])
