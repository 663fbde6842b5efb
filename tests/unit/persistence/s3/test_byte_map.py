from hypothesis import given
from hypothesis import strategies as st

from persistence.s3.byte_map import ByteMap, Fill, Inline, ObjectRange, Piece

OBJECT = bytes(range(256)) * 2


def contents(file: ByteMap) -> bytes:
    found = []
    for piece in file.pieces:
        if isinstance(piece, ObjectRange):
            found.append(OBJECT[piece.first : piece.first + piece.size])
        else:
            found.extend(piece.chunks())
    return b"".join(found)


pieces: st.SearchStrategy[Piece] = st.one_of(
    st.builds(ObjectRange, st.just("key"), st.integers(0, 100), st.integers(0, 100)),
    st.builds(Inline, st.binary(max_size=50)),
    st.builds(Fill, st.just(b"\xd5"), st.integers(0, 200)),
)


@given(st.lists(pieces, max_size=8), st.integers(0, 500), st.integers(0, 500))
def test_any_range_of_a_file_equals_its_slice(parts: list[Piece], begin: int, end: int) -> None:
    file = ByteMap.of(parts)
    whole = contents(file)
    assert file.size == len(whole)
    assert all(piece.size for piece in file.pieces)
    part = file.between(begin, end)
    assert contents(part) == whole[begin:end]
    assert part.size == len(whole[begin:end])


def test_long_silence_is_yielded_in_small_chunks() -> None:
    silence = Fill(b"\xff", 10 * 65_536 + 3)
    sizes = [len(chunk) for chunk in silence.chunks()]
    assert (sum(sizes), max(sizes)) == (silence.size, 65_536)
