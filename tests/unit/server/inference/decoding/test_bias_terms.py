import pytest

from server.inference.decoding.bias_terms import is_terms_only, is_within_one_term, prompt_tokens


def encode(text: str) -> list[int]:
    """One token a character."""
    return [ord(character) for character in text]


def prompt(terms: list[str], room: int = 224) -> str:
    return "".join(map(chr, prompt_tokens(terms, encode, room)))


def test_terms_are_listed_under_a_heading() -> None:
    assert prompt(["Dashwood", "Norland Park"]) == " Glossary: Dashwood, Norland Park."


def test_terms_that_do_not_fit_are_left_out_whole() -> None:
    assert prompt(["Dashwood", "Norland Park", "Sussex"], room=30) == " Glossary: Dashwood."
    assert prompt(["Dashwood"], room=19) == ""


def test_a_term_that_does_not_fit_alone_is_skipped() -> None:
    long = "Hertfordshire " * 3
    assert prompt([long, "Dashwood", long, "Norland Park"], room=40) == " Glossary: Dashwood, Norland Park."
    assert prompt([long], room=40) == ""


def test_terms_after_the_first_that_does_not_fit_are_left_out() -> None:
    assert prompt(["Dashwood", "Norland Park", "Ann"], room=30) == " Glossary: Dashwood."


def test_blank_terms_are_skipped_and_line_breaks_become_spaces() -> None:
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
def test_a_text_of_only_the_words_of_terms_is_detected(text: str) -> None:
    assert is_terms_only(text, TERMS)


@pytest.mark.parametrize("text", ["Mr. Dashwood", "Norland Park is old", "Parks", "", "..."])
def test_a_text_with_another_word_or_none_is_not_terms_only(text: str) -> None:
    assert not is_terms_only(text, TERMS)


@pytest.mark.parametrize(
    ("text", "within"),
    [("Dashwood.", True), ("Norland", True), ("norland park", True), ("Park Norland", False), ("Park Dashwood", False)],
)
def test_one_term_or_part_of_it_differs_from_a_list(text: str, within: bool) -> None:
    assert is_within_one_term(text, TERMS) is within


def test_without_terms_no_text_is_terms_only() -> None:
    assert not is_terms_only("anything", [])
    assert not is_terms_only("anything", ["--"])
