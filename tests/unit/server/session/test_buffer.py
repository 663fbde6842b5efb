import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.session.buffer import AudioBuffer


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 1)), max_size=40))
def test_audio_that_was_not_discarded_reads_back_as_appended(steps: list[tuple[int, float]]) -> None:
    buffer, kept, total = AudioBuffer(), 0, 0
    for count, share in steps:
        buffer.append(np.arange(total, total + count, dtype=np.float32))
        total += count
        kept = max(kept, int(total * share))
        buffer.discard_before(kept)
        assert buffer.end == total
        np.testing.assert_array_equal(buffer.slice(kept, total), np.arange(kept, total, dtype=np.float32))


def test_memory_stays_bounded_when_old_audio_is_discarded() -> None:
    buffer = AudioBuffer()
    for second in range(600):
        buffer.append(np.zeros(16_000, np.float32))
        buffer.discard_before(second * 16_000)
    assert buffer._samples.nbytes < 64_000 * 8
