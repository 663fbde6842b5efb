"""The finals of a stored transcript that the rows lack, and their indexes."""

from dataclasses import replace
from uuid import UUID

import pytest

from domain.transcript import Utterance
from persistence.postgres.finals import uncovered

ID = UUID(int=1)
A, B, C, D = (Utterance(float(at), at + 1.0, text, 0.5, "en") for at, text in enumerate("abcd"))


@pytest.mark.parametrize(
    ("stored", "known", "expected"),
    [
        pytest.param([A, B, C], {0: A}, {1: B, 2: C}, id="the rows end before"),
        pytest.param([A, B, C], {0: A, 2: C}, {1: B}, id="the rows have a gap"),
        pytest.param([A, C], {0: A, 2: C}, {}, id="the transcript was made of rows with a gap"),
        pytest.param([A, C, D], {0: A, 1: B, 2: C}, {3: D}, id="and has more after it"),
        pytest.param([A, B], {0: A, 1: replace(B, text="other")}, {}, id="another text"),
        pytest.param([A, B, C], {0: A, 1: replace(B, text="other")}, {2: C}, id="another text, and more after it"),
        pytest.param([A, B, C], {0: A, 1: replace(B, end=1.9)}, {2: C}, id="another time of the same speech"),
        pytest.param([A, B, C], {0: A, 1: C}, {}, id="no index is free"),
        pytest.param([], {0: A}, {}, id="nothing is stored"),
        pytest.param([A, B], {}, {0: A, 1: B}, id="no rows"),
    ],
)
def test_finals_without_a_row_receive_free_indexes_in_time_order(
    stored: list[Utterance], known: dict[int, Utterance], expected: dict[int, Utterance]
) -> None:
    found = uncovered(ID, stored, known)
    assert {each.index: each.utterance for each in found} == expected
    assert {each.session_id for each in found} <= {ID}
