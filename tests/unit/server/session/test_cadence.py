from server.session.cadence import Cadence

RATE = 16_000


def tries(cadence: Cadence, seconds: float, *, speed: float = 1.0) -> list[float]:
    """When an utterance that goes on is tried, if it is heard in pieces of 50 ms."""
    times = []
    for step in range(1, round(seconds * 20) + 1):
        end, now = step * RATE // 20, 100 + step / 20 / speed
        if cadence.is_due(end, now):
            cadence.tried(end, now)
            times.append(step / 20)
    return times


def test_an_utterance_is_tried_at_once_and_soon_again_until_there_is_something_to_tell() -> None:
    cadence = Cadence()
    cadence.begin()
    assert tries(cadence, 1) == [0.05, 0.25, 0.45, 0.65, 0.85]


def test_once_something_was_told_it_is_tried_every_half_second() -> None:
    cadence = telling()
    assert tries(cadence, 2) == [0.05, 0.55, 1.05, 1.55]


def telling() -> Cadence:
    """In an utterance of which something was told."""
    cadence = Cadence()
    cadence.begin()
    cadence.slow_down()
    return cadence


def test_audio_that_comes_faster_than_it_was_spoken_is_tried_less_often() -> None:
    cadence = telling()
    assert tries(cadence, 20, speed=20) == [0.05, 5.05, 10.05, 15.05]
