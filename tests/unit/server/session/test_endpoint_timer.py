import random
from collections.abc import Iterable, Iterator

import pytest

from server.session.endpoint_timer import TICK_SECONDS, EndpointTimer

SILENCE = 0.5

Arrival = tuple[float, float]
"""The arrival time of a message, and the length of its audio."""


def due_at(arrivals: Iterable[Arrival], until: float) -> list[float]:
    """The times at which the audio counts as stopped, once per pause, in a session that begins at 0."""
    timer, due, was_due = EndpointTimer(SILENCE, 0.0), [], False
    events = [*((when, 1, seconds) for when, seconds in arrivals), *((tick, 0, 0.0) for tick in ticks(until))]
    for when, kind, seconds in sorted(events):
        if kind:
            timer.note_arrival(seconds, when)
            timer.note_processed(when)
            was_due = False
        elif timer.is_due(when) and not was_due:
            due.append(when)
            was_due = True
    return due


def ticks(until: float) -> Iterator[float]:
    tick = 0.0
    while (tick := tick + TICK_SECONDS) < until:
        yield tick


def live(seconds: float, piece: float = 0.1, start: float = 0.0) -> list[Arrival]:
    """A microphone: each piece arrives when it has been spoken."""
    return [(start + (number + 1) * piece, piece) for number in range(round(seconds / piece))]


def test_audio_that_stops_ends_after_the_requested_silence_and_a_second() -> None:
    (due,) = due_at(live(5), until=40)
    assert 5 + SILENCE + 1 <= due <= 5 + SILENCE + 1 + 0.1 + 2 * TICK_SECONDS


def test_continuous_audio_never_ends() -> None:
    assert due_at(live(60), until=60) == []


def test_a_network_that_stalls_for_a_second_ends_nothing() -> None:
    assert due_at([*live(5), *live(5, start=6.3)], until=11) == []


@pytest.mark.parametrize("piece", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("message", [2.0, 0.1])
def test_the_timer_waits_for_a_client_that_sends_in_pieces(piece: float, message: float) -> None:
    """Each piece as one message, or as many in quick succession, with a network that delays it by up to 0.4 s."""
    wire = random.Random(int(piece * 10))
    arrivals = []
    for when, seconds in live(60, piece):
        late, count = when + wire.uniform(0, 0.4), max(1, round(seconds / message))
        arrivals += [(late + number * 0.002, seconds / count) for number in range(count)]
    assert due_at(arrivals, until=60) == []


def test_the_timer_waits_if_the_first_piece_predates_the_session() -> None:
    assert due_at([(0.05 + 2 * number, 2.0) for number in range(10)], until=20) == []


def test_after_long_pieces_the_timer_waits_longer_by_one_piece() -> None:
    (due,) = due_at(live(20, 2.0), until=60)
    assert 20 + SILENCE + 1 + 2 <= due <= 20 + SILENCE + 1 + 2 + 3 * TICK_SECONDS


def test_after_a_fast_upload_the_timer_does_not_wait_for_its_length() -> None:
    (due,) = due_at([(number * 0.001, 0.1) for number in range(300)], until=60)
    assert due <= 0.3 + SILENCE + 1 + 1 + 2 * TICK_SECONDS


def test_after_push_to_talk_the_timer_does_not_wait_for_its_length() -> None:
    presses = [(start + number * 0.001, 0.1) for start in (5.0, 30.0, 60.0) for number in range(40)]
    due = due_at(presses, until=90)
    assert len(due) == 3
    for start, over in zip((5.0, 30.0, 60.0), due, strict=True):
        assert over - start <= SILENCE + 1 + 1 + 3 * TICK_SECONDS


def test_each_pause_ends_an_utterance() -> None:
    assert len(due_at([*live(2), *live(2, start=10), *live(2, start=20)], until=40)) == 3


def test_time_in_which_the_process_is_suspended_does_not_count() -> None:
    timer = EndpointTimer(SILENCE, 0.0)
    timer.note_arrival(0.1, 1.0)
    timer.note_processed(1.0)
    assert not timer.is_due(1.25)
    assert not timer.is_due(60.0)
    assert not timer.is_due(60.25)
    assert any(timer.is_due(60.25 + tick) for tick in ticks(2))


def test_time_in_which_audio_is_processed_does_not_count() -> None:
    timer = EndpointTimer(SILENCE, 0.0)
    timer.note_arrival(0.1, 1.0)
    timer.note_processed(31.0)
    assert not timer.is_due(31.25)
    timer.note_arrival(0.1, 31.3)
    timer.note_processed(31.3)
    due = next(tick for tick in ticks(10) if timer.is_due(31.3 + tick))
    assert due <= SILENCE + 1 + 0.1 + 2 * TICK_SECONDS
