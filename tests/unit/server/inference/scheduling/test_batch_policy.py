from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from server.inference.batch_limits import BatchLimits
from server.inference.decoding.encoder_window import ENCODER_FRAMES_PER_SECOND, window
from server.inference.scheduling.batch_policy import (
    BULK_FIRST,
    BULK_LAST,
    FINALS_FIRST,
    Candidate,
    Kind,
    next_batch,
)

LIMITS = BatchLimits(rows=4, encoder_frames=3000, waste=0.25)


def queue(*encoder_frames: int, model: str = "base") -> list[Candidate]:
    return [Candidate(model, count) for count in encoder_frames]


def test_an_empty_queue_has_no_batch() -> None:
    assert next_batch([], LIMITS) == []


def test_the_longest_waiting_utterance_goes_even_if_it_exceeds_the_limits() -> None:
    assert next_batch(queue(5000), LIMITS) == [0]


def test_utterances_of_like_length_share_a_batch() -> None:
    assert next_batch(queue(300, 320, 288), LIMITS) == [0, 1, 2]


def test_a_long_utterance_does_not_join_a_short_one() -> None:
    assert next_batch(queue(200, 1500, 200), LIMITS) == [0, 2]


def test_a_batch_has_one_model_that_of_its_first_utterance() -> None:
    mixed = [Candidate("base", 300), Candidate("large", 300), Candidate("base", 300)]
    assert next_batch(mixed, LIMITS) == [0, 2]
    assert next_batch(mixed[1:2], LIMITS) == [0]


def test_a_batch_never_holds_more_rows_than_allowed() -> None:
    assert next_batch(queue(*[300] * 9), LIMITS) == [0, 1, 2, 3]


def test_a_batch_never_holds_more_frames_than_allowed() -> None:
    assert next_batch(queue(*[1500] * 4), LIMITS) == [0, 1]


def final(session: str, turn: float = 0.0, encoder_frames: int = 300, model: str = "base") -> Candidate:
    return Candidate(model, encoder_frames, session, turn)


def partial(session: str, turn: float = 0.0, encoder_frames: int = 300, model: str = "base") -> Candidate:
    return Candidate(model, encoder_frames, session, turn, "partial")


def bulk(session: str, turn: float = 0.0, encoder_frames: int = 300, model: str = "base") -> Candidate:
    return Candidate(model, encoder_frames, session, turn, "bulk")


def test_finals_go_before_partials_and_never_with_them() -> None:
    assert next_batch([partial("a", 1), final("b", 2), partial("c", 3), final("d", 4)], LIMITS) == [1, 3]


def test_live_finals_begin_a_batch_and_bulk_finals_fill_it() -> None:
    assert next_batch([bulk("a", 1), bulk("a", 1), final("b", 2), partial("c", 0)], LIMITS) == [2, 0, 1]


def test_partials_may_precede_bulk_finals_and_never_live_finals() -> None:
    waiting = [bulk("a", 1), partial("b", 2)]
    assert next_batch(waiting, LIMITS) == [0]
    assert next_batch(waiting, LIMITS, BULK_LAST) == [1]
    assert next_batch([*waiting, final("c", 3)], LIMITS, BULK_LAST) == [2, 0]


def test_bulk_finals_may_precede_live_finals() -> None:
    assert next_batch([final("a", 1), bulk("b", 2)], LIMITS, BULK_FIRST) == [1, 0]


def test_a_short_partial_precedes_a_long_one_that_waits_little_longer() -> None:
    long_partial = partial("a", turn=1.0, encoder_frames=500)
    assert next_batch([long_partial, partial("b", turn=4.9, encoder_frames=100)], LIMITS) == [1]
    assert next_batch([long_partial, partial("b", turn=5.1, encoder_frames=100)], LIMITS) == [0]
    assert next_batch([final("a", turn=1.0, encoder_frames=500), final("b", turn=1.1, encoder_frames=100)], LIMITS) == [
        0
    ]


def test_a_batch_of_partials_is_smaller() -> None:
    limits = BatchLimits(rows=4, encoder_frames=3000, waste=0.25, partial_rows=2)
    assert next_batch([partial(name) for name in "abcd"], limits) == [0, 1]
    assert next_batch([partial(name, encoder_frames=1500) for name in "abcd"], limits) == [0]


def test_the_next_of_every_session_goes_before_the_second_of_any() -> None:
    waiting = [*[final("a", 1)] * 6, final("b", 2), final("c", 3)]
    assert next_batch(waiting, LIMITS) == [0, 6, 7, 1]


def test_a_batch_begins_with_the_turn_that_has_waited_longest() -> None:
    assert next_batch([final("a", 5), final("b", 2, model="large"), final("c", 3)], LIMITS) == [1]


kinds = st.sampled_from(["live", "bulk", "partial"])
candidates = st.builds(
    Candidate,
    model=st.sampled_from(["a", "b"]),
    encoder_frames=st.integers(32, 1500),
    session=st.integers(0, 5),
    turn=st.floats(0, 9),
    kind=kinds,
)


@given(st.lists(candidates, min_size=1, max_size=40), st.sampled_from([FINALS_FIRST, BULK_LAST, BULK_FIRST]))
def test_every_batch_keeps_limits_model_and_precedence(waiting: list[Candidate], precedence: tuple[Kind, ...]) -> None:
    chosen = next_batch(waiting, LIMITS, precedence)
    batch = [waiting[index] for index in chosen]
    is_partial = batch[0].kind == "partial"
    limits = LIMITS.for_partials() if is_partial else LIMITS
    used, total = sum(job.encoder_frames for job in batch), max(job.encoder_frames for job in batch) * len(batch)
    assert len(set(chosen)) == len(chosen)
    assert len({(job.model, job.kind == "partial") for job in batch}) == 1
    assert batch[0].kind == next(kind for kind in precedence if kind in {job.kind for job in waiting})
    assert len(batch) <= limits.rows
    assert total <= limits.encoder_frames or len(batch) == 1
    assert total - used <= limits.waste * total


@given(st.lists(candidates, min_size=1, max_size=40), kinds)
def test_a_batch_begins_with_the_first_utterance_that_waited_longest(waiting: list[Candidate], kind: Kind) -> None:
    waiting = [replace(job, kind=kind) for job in waiting]
    head = next_batch(waiting, LIMITS)[0]
    firsts: dict[object, int] = {}
    for index, job in enumerate(waiting):
        firsts.setdefault(job.session, index)
    assert head in firsts.values()
    if kind != "partial":
        assert waiting[head].turn == min(waiting[index].turn for index in firsts.values())
        return
    for index in firsts.values():
        longer = (waiting[index].encoder_frames - waiting[head].encoder_frames) / ENCODER_FRAMES_PER_SECOND
        assert waiting[index].turn + longer / 2 >= waiting[head].turn - 1e-9


@given(st.lists(candidates, max_size=30))
def test_every_utterance_is_served_eventually(waiting: list[Candidate]) -> None:
    batches, most = 0, len(waiting)
    while waiting:
        chosen = set(next_batch(waiting, LIMITS))
        waiting = [job for index, job in enumerate(waiting) if index not in chosen]
        batches += 1
    assert batches <= most


@given(st.floats(0, 30))
def test_the_window_holds_the_utterance_and_a_margin_of_silence(seconds: float) -> None:
    encoder_frames = window(seconds, 1500)
    assert encoder_frames == 1500 or seconds + 1.5 <= encoder_frames / 50 <= seconds + 2.14
    assert encoder_frames % 32 == 0 or encoder_frames == 1500
