import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.postgres.position import Position

TENANT = uuid.UUID(int=7)


@given(
    st.integers(0, 2**40),
    st.integers(1, 2**62),
    st.sets(st.integers(0, 10_000), max_size=60),
)
def test_a_position_is_decoded_and_agrees_with_postgres(at: int, xmin: int, offsets: set[int]) -> None:
    running = tuple(sorted(xmin + offset for offset in offsets))
    xmax = max(running, default=xmin) + 1
    position = Position.of(f"{xmin}:{xmax}:{','.join(map(str, running))}", at + 0.5)
    assert position == Position(at, xmin, xmax, running)
    assert position.snapshot == f"{xmin}:{xmax}:{','.join(map(str, running))}"
    token = position.encode(TENANT, "active")
    assert len(token) <= 400
    assert Position.decode(token, TENANT, "active") == position
    assert Position.decode(token, uuid.UUID(int=8), "active") is None
    assert Position.decode(token, TENANT, None) is None
    assert position.has_seen(xmin - 1)
    assert not position.has_seen(xmax)
    assert not any(position.has_seen(xid) for xid in running)


def test_a_position_with_many_running_transactions_stays_short() -> None:
    position = Position(1, 100, 400, tuple(range(100, 400, 2)))
    token = position.encode(TENANT, None)
    assert len(token) <= 400
    assert Position.decode(token, TENANT, None) == Position(1, 100, 100)


@pytest.mark.parametrize(
    "position",
    [
        Position(1, 100, 200, (150, 140)),
        Position(1, 100, 200, (150, 150)),
        Position(1, 200, 100),
        Position(1, 0, 100),
        Position(1, 100, 2**63),
        Position(1, 2**63, 2**64 - 1),
        Position(1, 100, 200, (250,)),
    ],
)
def test_a_token_with_numbers_that_postgres_rejects_is_invalid(position: Position) -> None:
    assert Position.decode(position.encode(TENANT, None), TENANT, None) is None


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(bytes.hex)))
def test_other_text_is_not_a_token(token: str) -> None:
    assert Position.decode(token, TENANT, None) is None
    assert Position.decode(token * 40, TENANT, None) is None
