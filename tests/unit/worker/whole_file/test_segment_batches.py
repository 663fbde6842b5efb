from hypothesis import given
from hypothesis import strategies as st

from server.inference.decoding.encoder_window import window
from worker.whole_file.segment_batches import batches

FULL = 1500


@given(st.lists(st.floats(0.1, 28), max_size=30))
def test_every_segment_is_in_one_batch_with_segments_of_its_length(seconds: list[float]) -> None:
    found = batches(seconds, FULL)
    assert sorted(index for batch in found for index in batch) == list(range(len(seconds)))
    for batch in found:
        frames = [window(seconds[index], FULL) for index in batch]
        assert len(batch) <= 4
        assert len(batch) == 1 or max(frames) * len(batch) <= FULL
        assert sum(frames) >= 0.7 * max(frames) * len(batch)


def test_short_segments_share_a_batch_and_long_ones_do_not() -> None:
    assert batches([3.0, 28.0, 3.1, 3.2, 28.0, 3.3], FULL) == [[1], [4], [5, 3, 2, 0]]
