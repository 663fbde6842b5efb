"""The pattern detects every kind of damage and reports its place."""

import pytest

from tests.faults.pattern import audio, disagreement, position_of

GOOD = audio(7, 0, 4000)


def test_a_pattern_is_the_same_from_any_offset() -> None:
    assert disagreement(7, GOOD) is None
    assert disagreement(7, GOOD[1200:], start=1200) is None
    assert disagreement(7, GOOD[:1203]) is None
    assert disagreement(7, b"") is None
    assert position_of(GOOD[1200:]) == 1200


@pytest.mark.parametrize(
    ("data", "position", "words"),
    [
        (GOOD[:400] + GOOD[408:], 400, "8 bytes are missing"),
        (GOOD[:400] + GOOD[300:], 400, "100 bytes come again"),
        (GOOD[:400] + bytes(100) + GOOD[500:], 400, "zeros"),
        (GOOD[:400] + audio(8, 400, 4) + GOOD[404:], 400, "session 8"),
        (GOOD[:401] + GOOD[402:], 400, "shifted"),
        (audio(8, 0, 40), 0, "session 8"),
        (GOOD[:401] + b"\xff", 400, "cut short"),
    ],
)
def test_damage_is_found_where_it_is(data: bytes, position: int, words: str) -> None:
    found = disagreement(7, data)
    assert found is not None
    assert found.position == position
    assert words in str(found)
