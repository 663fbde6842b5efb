import math
from collections.abc import Callable, Sequence

import pytest

from server.inference.decoding.words import TimedTokens, certain_beginning, timed_words
from server.inference.recognition import Word


def decoder(pieces: Sequence[str | bytes]) -> Callable[[list[int]], str]:
    table = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return lambda tokens: b"".join(table[token] for token in tokens).decode(errors="replace")


def words(pieces: Sequence[str | bytes], language: str = "en", chances: Sequence[float] | None = None) -> list[Word]:
    """The words of a text in these tokens; token n lasts from n to n + 1 seconds."""
    count = len(pieces)
    logs = [math.log(chance) for chance in chances or [0.5] * count]
    timed = TimedTokens(list(range(count)), logs, [float(second) for second in range(count + 1)])
    return list(timed_words(timed, decoder(pieces), language))


def spans(pieces: Sequence[str | bytes], language: str = "en") -> list[tuple[str, float, float]]:
    return [(word.word, word.start, word.end) for word in words(pieces, language)]


def test_a_space_begins_a_word() -> None:
    assert spans([" The", " fam", "ily"]) == [("The", 0, 1), ("family", 1, 3)]


def test_punctuation_belongs_to_its_word_and_takes_none_of_its_time() -> None:
    assert spans([' "', "Oh", ",", " dear", '."']) == [('"Oh,', 1, 2), ('dear."', 3, 4)]


def test_punctuation_within_a_word_does_not_end_it() -> None:
    assert spans([" well", "-", "known", " 3", ".", "5"]) == [("well-known", 0, 3), ("3.5", 3, 6)]


def test_punctuation_between_spaces_is_a_word() -> None:
    assert spans([" Bonjour", " ?"], "fr") == [("Bonjour", 0, 1), ("?", 1, 2)]


def test_a_character_split_between_tokens_is_joined() -> None:
    raw = "é".encode()
    assert spans([" caf", raw[:1], raw[1:], " noir"], "fr") == [("café", 0, 3), ("noir", 3, 4)]


def test_an_incomplete_character_at_the_end_is_kept() -> None:
    assert spans([" caf", "é".encode()[:1]], "fr") == [("caf\N{REPLACEMENT CHARACTER}", 0, 1)]


def test_without_spaces_every_character_is_a_word() -> None:
    raw = "語".encode()
    assert spans(["日", "本", raw[:2], raw[2:], "。", "「", "は", "」"], "ja") == [
        ("日", 0, 1),
        ("本", 1, 2),
        ("語。", 2, 4),
        ("「は」", 6, 7),
    ]


def test_thai_vowels_are_spoken() -> None:
    assert spans(["ก", "ั"], "th") == [("ก", 0, 1), ("ั", 1, 2)]


def test_white_space_alone_is_no_word() -> None:
    assert spans([" ", " one", "  "]) == [("one", 1, 2)]


def test_a_text_of_punctuation_alone_is_a_word() -> None:
    assert spans([" ..", "."]) == [("...", 0, 2)]


def test_no_tokens_make_no_words() -> None:
    assert spans([]) == []


def test_confidence_is_the_geometric_mean_of_spoken_tokens() -> None:
    (word,) = words([" fam", "ily", "."], chances=[0.9, 0.4, 0.01])
    assert word.confidence == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("pieces", "chances", "certain"),
    [
        ([" He", " was", " not", "."], [0.7, 0.9, 0.8, 0.1], "He was not."),
        ([" He", " was", " not", "."], [0.7, 0.9, 0.5, 0.9], "He was"),
        ([" He", " am", "iable"], [0.7, 0.9, 0.5], "He"),
        ([" He", " was"], [0.5, 0.9], ""),
        ([], [], ""),
    ],
)
def test_a_text_is_certain_up_to_its_first_uncertain_word(
    pieces: list[str], chances: list[float], certain: str
) -> None:
    logs = [math.log(chance) for chance in chances]
    assert certain_beginning(range(len(pieces)), logs, 0.6, decoder(pieces), "en") == certain
