"""The resume point, from the finals of a session."""

from hypothesis import given
from hypothesis import strategies as st

from persistence.resume_point import ResumePoint


def test_recognised_speech_is_before_the_point() -> None:
    resume_point = ResumePoint()
    assert resume_point.seconds(10.0) == 0.0
    resume_point.note_processed(4.0)
    assert resume_point.seconds(10.0) == 4.0
    resume_point.note_utterance(5.0, 6.0)
    assert resume_point.seconds(10.0) == 6.0


def test_speech_cut_by_the_end_of_the_audio_is_after_the_point() -> None:
    resume_point = ResumePoint()
    resume_point.note_utterance(5.0, 10.0)
    resume_point.note_processed(10.0)
    assert resume_point.seconds(10.0) == 5.0


def test_speech_ended_by_a_flush_is_before_the_point_once_audio_follows() -> None:
    resume_point = ResumePoint()
    resume_point.note_utterance(5.0, 10.0)
    resume_point.note_processed(10.0)
    assert resume_point.seconds(10.1) == 10.0


def test_a_point_within_an_utterance_moves_to_its_start() -> None:
    resume_point = ResumePoint()
    resume_point.note_utterance(1.0, 3.0)
    resume_point.note_utterance(4.0, 6.0)
    resume_point.note_processed(9.0)
    assert [resume_point.seconds(10.0, stored) for stored in (0.5, 1.0, 2.0, 3.0, 3.5, 5.0, 6.0, 20.0)] == [
        0.5,
        1.0,
        1.0,
        3.0,
        3.5,
        4.0,
        6.0,
        9.0,
    ]


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.1, 28), st.floats(0, 30)), max_size=20))
def test_the_point_never_decreases_and_never_cuts_an_utterance(steps: list[tuple[float, float, float]]) -> None:
    """Pauses, utterances, and how much more is stored after each."""
    resume_point, end, stored, last = ResumePoint(), 0.0, 0.0, 0.0
    spoken: list[tuple[float, float]] = []
    for pause, length, more in steps:
        start, end = end + pause, end + pause + length
        resume_point.note_processed(start)
        resume_point.note_utterance(start, end)
        spoken.append((start, end))
        stored = min(end + 0.2, stored + more)
        point = resume_point.seconds(end + 0.2, stored)
        assert last <= point <= stored
        assert not any(first < point < last_of for first, last_of in spoken)
        last = point
