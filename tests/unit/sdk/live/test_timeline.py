"""One timeline over many sessions: nothing told twice, nothing missing."""

from dataclasses import dataclass

from dalston.events import Acknowledged, FinalResult, SpeechEnded, SpeechStarted, Warned
from dalston.live.timeline import SLACK_SECONDS, Timeline
from hypothesis import given
from hypothesis import strategies as st

LONGEST = 28.0
ROUNDING = 1e-6
"""What sums of seconds are off by, at the most: there is nothing to be said in it."""


def final(start: float, end: float, text: str = "") -> FinalResult:
    return FinalResult(text, start, end, 0.9, "en")


@dataclass(frozen=True)
class Speech:
    """Utterances on the caller's timeline, with silence between them."""

    utterances: tuple[tuple[float, float], ...]
    duration: float

    def told_from(self, point: float) -> list[tuple[int, float, float]]:
        """What a session says that begins there: a word cut in two is an utterance of its own, and not the whole."""
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
def test_whatever_is_lost_every_final_is_told_once_and_whole(
    speech: Speech, cuts: list[tuple[float, float, float, float]], stores: bool
) -> None:
    """Each cut: how far the service has received, processed and stored the audio, and how many finals came through."""
    timeline, kept_from, told = Timeline(), 0.0, []
    begin = 0.0
    for far, seen, stored_share, kept_share in [*cuts, (1.0, 1.0, 1.0, 0.0)]:
        timeline.begin(begin)
        received = begin + far * (speech.duration - begin)
        finals = [each for each in speech.told_from(begin) if each[2] <= received + 1e-6]
        finals = finals[: round(seen * len(finals))]
        for index, start, end in finals:
            got = timeline.final(final(start - begin, end - begin, str(index)))
            if got is not None:
                told.append((int(got.text), round(got.start, 3), round(got.end, 3)))
        unsaid = [start for _, start, _ in speech.told_from(begin)[len(finals) :]]
        processed = min([received, *unsaid])
        stored = begin + stored_share * (received - begin) if stores else 0.0
        timeline.acknowledge(received - begin, max(0.0, processed - begin), max(0.0, stored - begin))
        releasable = timeline.releasable(stores_audio=stores)
        kept_from += kept_share * max(0.0, releasable - kept_from)
        timeline.forget(kept_from)
        point = timeline.resume_point(kept_from, stores_audio=stores)
        assert begin <= point
        assert kept_from <= point
        if stores:
            assert point <= max(stored, begin) + 1e-6, "the recording would have a gap"
        begin = point
    assert told == [(i, s, e) for i, (s, e) in enumerate(speech.utterances)]


@given(speech=speeches(), share=st.floats(0, 1))
def test_the_slack_always_has_a_place_to_begin(speech: Speech, share: float) -> None:
    """Where audio is let go of, the next session still begins between two utterances."""
    timeline = Timeline()
    for start, end in speech.utterances:
        timeline.final(final(start, end))
    stored = share * speech.duration
    timeline.acknowledge(speech.duration, speech.duration, stored)
    kept_from = timeline.releasable(stores_audio=True)
    assert kept_from == max(0.0, stored - SLACK_SECONDS)
    timeline.forget(kept_from)
    point = timeline.resume_point(kept_from, stores_audio=True)
    assert not any(start + 1e-9 < point < end - 1e-9 for start, end in speech.utterances)


def test_finals_of_a_new_session_are_dropped_by_their_middle() -> None:
    timeline = Timeline()
    timeline.final(final(4.0, 6.0))
    timeline.begin(3.0)
    assert timeline.final(final(1.0, 2.9)) is None
    told = timeline.final(final(2.8, 5.0))
    assert told is not None
    assert (told.start, told.end) == (5.8, 8.0)


def test_speech_that_goes_on_over_a_lost_connection_begins_once() -> None:
    timeline = Timeline()
    assert timeline.speech_started(5.0) == SpeechStarted(5.0)
    timeline.begin(4.0)
    assert timeline.speech_started(1.0) is None
    assert timeline.speech_ended(3.0) == SpeechEnded(7.0)
    timeline.begin(4.0)
    assert timeline.speech_started(1.0) is None
    assert timeline.speech_ended(3.0) is None
    assert timeline.speech_started(5.0) == SpeechStarted(9.0)


def test_acknowledgements_never_go_back() -> None:
    timeline = Timeline()
    timeline.acknowledge(10.0, 9.0, 8.0)
    timeline.begin(7.0)
    assert timeline.acknowledge(1.0, 0.5, 0.0) == Acknowledged(10.0, 9.0, 8.0)
    assert timeline.acknowledge(5.0, 4.0, 3.0) == Acknowledged(12.0, 11.0, 10.0)


def test_what_the_earlier_session_stored_behind_the_point_does_not_count_as_stored() -> None:
    timeline = Timeline()
    for start, end in ((0.0, 5.0), (10.0, 15.0), (20.0, 25.0)):
        timeline.final(final(start, end))
    timeline.acknowledge(30.0, 30.0, 18.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 15.0
    timeline.begin(15.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 15.0, "the new session has stored nothing yet"


def test_without_a_recording_the_end_of_the_last_final_is_the_point() -> None:
    timeline = Timeline()
    timeline.final(final(20.0, 25.0))
    timeline.acknowledge(30.0, 30.0, 0.0)
    assert timeline.resume_point(0.0, stores_audio=False) == 25.0
    assert timeline.resume_point(27.0, stores_audio=False) == 27.0


def test_an_utterance_cut_off_by_leaving_is_left_to_the_next_session() -> None:
    timeline = Timeline()
    assert timeline.final(final(1.0, 3.0), sent=9.0) is not None
    assert timeline.final(final(7.0, 8.9), sent=9.0) is None
    timeline.completed(9.0)
    assert timeline.resume_point(0.0, stores_audio=True) == 3.0


def suppressed(start: str, end: str) -> Warned:
    return Warned("speech_suppressed", "no final", {"start": start, "end": end, "reason": "no_speech"})


def test_suppressed_speech_is_told_once_and_in_the_caller_s_time() -> None:
    timeline = Timeline()
    assert timeline.suppressed(suppressed("1.5", "2.25")) == suppressed("1.5", "2.25")
    timeline.begin(1.25)
    assert timeline.suppressed(suppressed("0.25", "1")) is None, "the earlier session told it"
    assert timeline.suppressed(suppressed("3.5", "4.75")) == suppressed("4.75", "6")
    timeline.final(final(6.0, 8.0))
    timeline.begin(2.0)
    assert timeline.suppressed(suppressed("4.5", "7")) is None, "there is a final for it"


def test_suppressed_speech_without_its_place_is_passed_on() -> None:
    warned = Warned("speech_suppressed", "no final", {"start": "somewhere"})
    assert Timeline().suppressed(warned) == warned
