from hypothesis import given
from hypothesis import strategies as st

from server.inference.batch_policy import BatchLimits, Candidate, next_batch, window

LIMITS = BatchLimits(rows=4, frames=3000, waste=0.25)


def queue(*frames: int, model: str = "base") -> list[Candidate]:
    return [Candidate(model, count) for count in frames]


def test_an_empty_queue_has_no_batch() -> None:
    assert next_batch([], LIMITS) == []


def test_the_longest_waiting_utterance_goes_even_if_it_exceeds_the_limits_alone() -> None:
    assert next_batch(queue(5000), LIMITS) == [0]


def test_utterances_of_like_length_share_a_batch() -> None:
    assert next_batch(queue(300, 320, 288), LIMITS) == [0, 1, 2]


def test_a_long_utterance_does_not_join_a_short_one() -> None:
    assert next_batch(queue(200, 1500, 200), LIMITS) == [0, 2]


def test_a_batch_holds_one_model_and_the_other_takes_its_turn_when_it_is_first() -> None:
    mixed = [Candidate("base", 300), Candidate("large", 300), Candidate("base", 300)]
    assert next_batch(mixed, LIMITS) == [0, 2]
    assert next_batch(mixed[1:2], LIMITS) == [0]


def test_a_batch_never_holds_more_rows_than_allowed() -> None:
    assert next_batch(queue(*[300] * 9), LIMITS) == [0, 1, 2, 3]


def test_a_batch_never_holds_more_frames_than_allowed() -> None:
    assert next_batch(queue(*[1500] * 4), LIMITS) == [0, 1]


@given(st.lists(st.builds(Candidate, st.sampled_from(["a", "b"]), st.integers(32, 1500)), min_size=1, max_size=40))
def test_every_batch_keeps_to_the_limits_in_the_order_of_arrival(waiting: list[Candidate]) -> None:
    chosen = next_batch(waiting, LIMITS)
    batch = [waiting[index] for index in chosen]
    used, total = sum(job.frames for job in batch), max(job.frames for job in batch) * len(batch)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert {job.model for job in batch} == {waiting[0].model}
    assert len(batch) <= LIMITS.rows
    assert total <= LIMITS.frames
    assert total - used <= LIMITS.waste * total


@given(st.lists(st.integers(32, 1500), max_size=30))
def test_every_utterance_is_served_in_the_end(frames: list[int]) -> None:
    waiting = queue(*frames)
    batches = 0
    while waiting:
        chosen = set(next_batch(waiting, LIMITS))
        waiting = [job for index, job in enumerate(waiting) if index not in chosen]
        batches += 1
    assert batches <= len(frames)


@given(st.floats(0, 30))
def test_the_window_holds_the_utterance_and_a_margin_of_silence(seconds: float) -> None:
    frames = window(seconds, 1500)
    assert frames == 1500 or seconds + 1.5 <= frames / 50 <= seconds + 2.14
    assert frames % 32 == 0 or frames == 1500
