"""One timeline for many sessions: no final is duplicated or missing."""

from dataclasses import dataclass

from dalston.events import Acknowledged, FinalResult, SpeechEnded, SpeechStarted, Warned
from dalston.live.timeline import SLACK_SECONDS, Timeline
from hypothesis import given
from hypothesis import strategies as st

LONGEST = 28.0
ROUNDING = 1e-6
"""Largest rounding error of sums of seconds; shorter stretches contain no speech."""


def final(start: float, end: float, text: str = "") -> FinalResult:
    return FinalResult(text, start, end, 0.9, "en")


@dataclass(frozen=True)
class Speech:
    """Utterances on the caller's timeline, with silence between them."""

    utterances: tuple[tuple[float, float], ...]
    duration: float

    def transcribed_from(self, point: float) -> list[tuple[int, float, float]]:
        """The utterances of a session that begins there; one that is cut at the point is shorter than the whole."""
        return [(i, max(s, point), e) for i, (s, e) in enumerate(self.utterances) if e > point + ROUNDING]


@st.composite
def speeches(draw: st.DrawFn) -> Speech:
    time, utterances = 0.0, []
    for silence, length in draw(
        st.lists(st.tuples(st.floats(0, 60), st.floats(0.3, LONGEST)), min_size=1, max_size=12)
    ):
        start = round(time + silence, 3)
        time = round(start + length, 3)
        utterances.append((start, time))
    return Speech(tuple(utterances), time + draw(st.floats(0, 60)))


@given(speech=speeches(), cuts=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=12), stores=st.booleans())
def test_every_final_is_emitted_once_and_whole_whatever_is_lost(
    speech: Speech, cuts: list[tuple[float, float, float, float]], stores: bool
) -> None:
    """Each cut has shares: audio received, finals delivered, audio stored, and buffered audio discarded."""
    timeline, buffer_start, emitted = Timeline(), 0.0, []
    begin = 0.0
    for far, seen, stored_share, kept_share in [*cuts, (1.0, 1.0, 1.0, 0.0)]:
        timeline.begin_session(begin)
        received = begin + far * (speech.duration - begin)
        finals = [each for each in speech.transcribed_from(begin) if each[2] <= received + 1e-6]
        finals = finals[: round(seen * len(finals))]
        for index, start, end in finals:
            got = timeline.final(final(start - begin, end - begin, str(index)))
            if got is not None:
                emitted.append((int(got.text), round(got.start, 3), round(got.end, 3)))
        pending = [start for _, start, _ in speech.transcribed_from(begin)[len(finals) :]]
        processed = min([received, *pending])
        stored = begin + stored_share * (received - begin) if stores else 0.0
        timeline.acknowledge(received - begin, max(0.0, processed - begin), max(0.0, stored - begin))
        safe_until = timeline.safe_until(stores_audio=stores)
        buffer_start += kept_share * max(0.0, safe_until - buffer_start)
        timeline.discard_before(buffer_start)
        point = timeline.resume_point(buffer_start, stores_audio=stores)
        assert begin <= point
        assert buffer_start <= point
        if stores:
            assert point <= max(stored, begin) + 1e-6, "the recording would have a gap"
        begin = point
    assert emitted == [(i, s, e) for i, (s, e) in enumerate(speech.utterances)]


@given(speech=speeches(), share=st.floats(0, 1))
def test_slack_always_contains_a_resume_point(speech: Speech, share: float) -> None:
    """After audio is discarded, the next session still begins between two utterances."""
    timeline = Timeline()
    for start, end in speech.utterances:
        timeline.final(final(start, end))
    stored = share * speech.duration
    timeline.acknowledge(speech.duration, speech.duration, stored)
    buffer_start = timeline.safe_until(stores_audio=True)
    assert buffer_start == max(0.0, stored - SLACK_SECONDS)
    timeline.discard_before(buffer_start)
    point = timeline.resume_point(buffer_start, stores_audio=True)
    assert not any(start + 1e-9 < point < end - 1e-9 for start, end in speech.utterances)


def test_repeated_finals_are_detected_by_their_middle() -> None:
    timeline = Timeline()
    timeline.final(final(4.0, 6.0))
    timeline.begin_session(3.0)
    assert timeline.final(final(1.0, 2.9)) is None
    second = timeline.final(final(2.8, 5.0))
    assert second is not None
    assert (second.start, second.end) == (5.8, 8.0)


def test_speech_across_a_lost_connection_starts_once() -> None:
    timeline = Timeline()
    assert timeline.speech_started(5.0) == SpeechStarted(5.0)
    timeline.begin_session(4.0)
    assert timeline.speech_started(1.0) is None
    assert timeline.speech_ended(3.0) == SpeechEnded(7.0)
    timeline.begin_session(4.0)
    assert timeline.speech_started(1.0) is None
    assert timeline.speech_ended(3.0) is None
    assert timeline.speech_started(5.0) == SpeechStarted(9.0)


def test_acknowledgements_never_decrease() -> None:
    timeline = Timeline()
    timeline.acknowledge(10.0, 9.0, 8.0)
    timeline.begin_session(7.0)
    assert timeline.acknowledge(1.0, 0.5, 0.0) == Acknowledged(10.0, 9.0, 8.0)
    assert timeline.acknowledge(5.0, 4.0, 3.0) == Acknowledged(12.0, 11.0, 10.0)


def test_audio_stored_after_the_resume_point_does_not_count_as_stored() -> None:
    timeline = Timeline()
    for start, end in ((0.0, 5.0), (10.0, 15.0), (20.0, 25.0)):
        timeline.final(final(start, end))
    timeline.acknowledge(30.0, 30.0, 18.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 15.0
    timeline.begin_session(15.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 15.0, "the new session has stored nothing yet"


def test_without_stored_audio_the_session_resumes_at_the_last_final() -> None:
    timeline = Timeline()
    timeline.final(final(20.0, 25.0))
    timeline.acknowledge(30.0, 30.0, 0.0)
    assert timeline.resume_point(0.0, stores_audio=False) == 25.0
    assert timeline.resume_point(27.0, stores_audio=False) == 27.0


def test_utterance_cut_off_by_handover_belongs_to_the_next_session() -> None:
    timeline = Timeline()
    assert timeline.final(final(1.0, 3.0), sent=9.0) is not None
    assert timeline.final(final(7.0, 8.9), sent=9.0) is None
    timeline.completed(9.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 3.0


def suppressed(start: str, end: str) -> Warned:
    return Warned("speech_suppressed", "no final", {"start": start, "end": end, "reason": "no_speech"})


def test_suppressed_speech_is_emitted_once_in_the_caller_s_time() -> None:
    timeline = Timeline()
    assert timeline.suppressed(suppressed("1.5", "2.25")) == suppressed("1.5", "2.25")
    timeline.begin_session(1.25)
    assert timeline.suppressed(suppressed("0.25", "1")) is None, "the earlier session emitted it"
    assert timeline.suppressed(suppressed("3.5", "4.75")) == suppressed("4.75", "6")
    timeline.final(final(6.0, 8.0))
    timeline.begin_session(2.0)
    assert timeline.suppressed(suppressed("4.5", "7")) is None, "there is a final for it"


def test_suppressed_speech_without_times_is_passed_on() -> None:
    warned = Warned("speech_suppressed", "no final", {"start": "somewhere"})
    assert Timeline().suppressed(warned) == warned
