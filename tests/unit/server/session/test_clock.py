import pytest

from server.session.clock import SampleClock


def test_duration_counts_sample_frames_at_the_rate_of_the_wire() -> None:
    clock = SampleClock(48_000)
    clock.advance(24_000)
    clock.advance(12_000)
    assert clock.duration == 0.75


def test_positions_are_seconds_within_the_received_audio() -> None:
    clock = SampleClock(8_000)
    clock.advance(8_000)
    assert clock.seconds(4_000) == pytest.approx(0.25)
    assert clock.seconds(16_100) == 1.0
