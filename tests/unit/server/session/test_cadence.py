from server.session.cadence import Cadence

RATE = 16_000


def passes(cadence: Cadence, seconds: float, *, speed: float = 1.0) -> list[float]:
    """The times of the passes over an utterance that arrives in pieces of 50 ms."""
    times = []
    for step in range(1, round(seconds * 20) + 1):
        end, now = step * RATE // 20, 100 + step / 20 / speed
        if cadence.is_due(end, now):
            cadence.note_pass(end, now)
            times.append(step / 20)
    return times


def test_passes_begin_at_once_and_are_frequent_until_the_first_partial() -> None:
    cadence = Cadence()
    cadence.start_utterance()
    assert passes(cadence, 1) == [0.05, 0.25, 0.45, 0.65, 0.85]


def test_after_the_first_partial_a_pass_is_due_every_half_second() -> None:
    cadence = after_first_partial()
    assert passes(cadence, 2) == [0.05, 0.55, 1.05, 1.55]


def after_first_partial() -> Cadence:
    """Within an utterance for which a partial was sent."""
    cadence = Cadence()
    cadence.start_utterance()
    cadence.slow_down()
    return cadence


def test_audio_faster_than_real_time_has_fewer_passes() -> None:
    cadence = after_first_partial()
    assert passes(cadence, 20, speed=20) == [0.05, 5.05, 10.05, 15.05]
