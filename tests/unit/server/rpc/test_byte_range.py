import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rpc.byte_range import ByteRange, RangeNotSatisfiable, requested_range


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=100-199", (100, 200)),
        ("bytes=900-", (900, 1000)),
        ("bytes=-100", (900, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("bytes=999-99999999999999999999999", (999, 1000)),
        ("Bytes= 0-99 ", (0, 100)),
    ],
)
def test_a_range_is_limited_to_the_file(header: str, part: tuple[int, int]) -> None:
    assert requested_range(header, 1000) == ByteRange(*part)


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", f"bytes={'9' * 80}-"])
def test_a_range_outside_the_file_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refusal:
        requested_range(header, 1000)
    assert refusal.value.size == 1000


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-3", "bytes=0-1,5-6", "lines=0-1", "bytes=-1-2",
     "bytes=+1-2", "bytes=٣-٤", f"bytes={'9' * 5000}-"],
)  # fmt: skip
def test_headers_without_a_single_range_are_ignored(header: str) -> None:
    assert requested_range(header, 1000) is None


def test_an_empty_file_has_no_ranges() -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range("bytes=0-", 0)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_a_range_equals_a_slice(first: int, last: int, size: int) -> None:
    data = bytes(range(200))[:size]
    try:
        part = requested_range(f"bytes={first}-{last}", size)
    except RangeNotSatisfiable:
        assert first >= size
        return
    if part is None:
        assert last < first
        return
    assert data[part.begin : part.end] == data[first : last + 1]
    assert part.content_range(size) == f"bytes {first}-{min(last, size - 1)}/{size}"
