import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from domain.transcript import Utterance
from server.audio.decoder import Samples
from server.audio.format import AudioFormat, Encoding
from server.inference.errors import QueueFull
from server.inference.recognition import Recognition, RecognitionOptions, Word
from server.session import endpoint_timer
from server.session import session as session_module
from server.session.budget import BURST, MAX_FLUSHES, PER_SECOND
from server.session.errors import InvalidAudio
from server.session.events import (
    Acknowledged,
    ContainerFound,
    Ended,
    Event,
    FinalResult,
    Flushed,
    SpeechEnded,
    SpeechStarted,
    SpeechSuppressed,
    Terminating,
)
from server.session.options import SessionOptions, VadOptions
from server.session.session import Session
from server.vad.silero import WINDOW_SAMPLES, Window
from tests.recognizers import Asked, Recognizer


class LoudnessVad:
    """Counts loud windows as speech, so that a test controls it."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> list[Window]:
        pending = np.concatenate((self._rest, samples))
        whole = len(pending) // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._rest = pending[whole:]
        rows = pending[:whole].reshape(-1, WINDOW_SAMPLES)
        return [Window(float(np.abs(row).max() > 0.1), float(np.square(row).mean())) for row in rows]


class ScriptedRecognizer(Recognizer):
    """Returns the number of the utterance, after an individual delay for each."""

    def __init__(self, delays: list[float] | None = None) -> None:
        self.calls: list[tuple[str, int, str | None]] = []
        self._delays: Iterator[float] = iter(delays or [])
        self.running = 0
        self.sessions: set[object] = set()

    async def answer(self, asked: Asked) -> Recognition:
        self.sessions.add(asked.session)
        self.calls.append((asked.model, len(asked.samples), asked.language))
        number = len(self.calls)
        self.running += 1
        try:
            await asyncio.sleep(next(self._delays, 0))
        finally:
            self.running -= 1
        return Recognition(f"utterance {number}", asked.language or "en", 0.9, 0.0, None)


def session(recognizer: ScriptedRecognizer, options: SessionOptions | None = None) -> Session:
    return Session(options or SessionOptions(), LoudnessVad(), recognizer)  # type: ignore[arg-type]


def pcm(seconds: float, level: float) -> bytes:
    return np.full(int(seconds * 16_000), int(level * 32767), "<i2").tobytes()


SPEECH, SILENCE = pcm(1, 0.5), pcm(1, 0.0)


async def collect(running: Session) -> list[Event]:
    return [event async for event in running]


def utterances_of(events: list[Event]) -> list[Utterance]:
    return [event.utterance for event in events if isinstance(event, FinalResult)]


def texts_of(events: list[Event]) -> list[str]:
    return [utterance.text for utterance in utterances_of(events)]


async def run(recognizer: ScriptedRecognizer, *chunks: bytes, options: SessionOptions | None = None) -> list[Event]:
    async with session(recognizer, options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        for chunk in chunks:
            await running.push(chunk)
        await running.finish()
    return events.result()


async def test_an_utterance_becomes_start_end_and_final_then_the_session_ends() -> None:
    events = await run(ScriptedRecognizer(), SILENCE, SPEECH, SILENCE)
    start, end, final, ended = events
    assert isinstance(start, SpeechStarted)
    assert isinstance(end, SpeechEnded)
    assert isinstance(final, FinalResult)
    assert isinstance(ended, Ended)
    utterance = final.utterance
    assert (utterance.start, utterance.end) == (start.timestamp, end.timestamp)
    assert utterance.start < 1 < 2 < utterance.end
    assert ended.total_duration == 3
    assert ended.total_speech_duration == pytest.approx(utterance.end - utterance.start)
    assert ended.transcript == "utterance 1"


async def test_finals_come_in_order_when_the_model_answers_out_of_order() -> None:
    events = await run(ScriptedRecognizer([0.05, 0.0, 0.02]), *[SPEECH, SILENCE] * 3)
    assert texts_of(events) == ["utterance 1", "utterance 2", "utterance 3"]


async def test_speech_that_the_audio_ends_in_is_transcribed() -> None:
    events = await run(ScriptedRecognizer(), SILENCE, SPEECH + pcm(0.0101, 0.5))
    final, *_ = utterances_of(events)
    assert final.end == pytest.approx(2.0101, abs=1e-4)


async def test_flush_is_answered_after_the_final_before_it() -> None:
    recognizer = ScriptedRecognizer([0.05])
    async with session(recognizer) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await running.push(SPEECH)
        await running.flush()
        await running.finish()
    kinds = [type(e) for e in events.result()]
    assert kinds == [SpeechStarted, SpeechEnded, FinalResult, Flushed, Ended]
    assert next(e for e in events.result() if isinstance(e, Flushed)).timestamp == 1.0


async def test_a_language_change_does_not_affect_the_utterance_in_progress() -> None:
    recognizer = ScriptedRecognizer()
    async with session(recognizer) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(running))
        await running.push(SPEECH)
        running.set_language("es")
        await running.push(SPEECH + SILENCE)
        await running.push(SPEECH + SILENCE)
        await running.finish()
    assert [language for _, _, language in recognizer.calls] == [None, "es"]


async def test_a_language_change_applies_from_the_next_utterance() -> None:
    recognizer = ScriptedRecognizer()
    async with session(recognizer) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(running))
        await running.push(SPEECH + SILENCE)
        running.set_language("es")
        await running.push(SPEECH + SILENCE)
        running.set_language("auto")
        await running.push(SPEECH + SILENCE)
        await running.finish()
    assert [language for _, _, language in recognizer.calls] == [None, "es", None]


async def test_word_times_are_session_times_within_their_final() -> None:
    class Timing(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            recognition = await super().answer(asked)
            words = (Word("one", 0.0, 0.25, 0.9), Word("two", 0.5, 99.0, 0.8))
            return replace(recognition, words=words if asked.options.words else ())

    events = await run(Timing(), SILENCE, SPEECH, SILENCE, options=SessionOptions(words=True))
    final, *_ = utterances_of(events)
    one, two = final.words
    assert (one.word, one.start, one.end, one.confidence) == ("one", final.start, round(final.start + 0.25, 3), 0.9)
    assert (two.start, two.end) == (round(final.start + 0.5, 3), final.end)
    events = await run(Timing(), SILENCE, SPEECH, SILENCE)
    assert utterances_of(events)[0].words == ()


async def test_a_final_carries_the_language_probability_of_its_recognition() -> None:
    class Detecting(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            return replace(await super().answer(asked), language_probability=0.75)

    (utterance,) = utterances_of(await run(Detecting(), SPEECH, SILENCE))
    assert utterance.language_probability == 0.75


async def test_bias_terms_and_expected_language_are_passed_to_the_engine() -> None:
    received_options: list[RecognitionOptions] = []

    class Detecting(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            received_options.append(asked.options)
            recognition = await super().answer(asked)
            return replace(recognition, language_probability=0.9)

    async with session(Detecting(), SessionOptions(bias_terms=("Dashwood",))) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect(running))
        for language in (None, None, "auto"):
            if language:
                running.set_language(language)
            await running.push(SPEECH + SILENCE)
            await asyncio.sleep(0.05)
        await running.finish()
    assert [options.bias_terms for options in received_options] == [("Dashwood",)] * 3
    assert [options.expected_language for options in received_options] == [None, "en", None]


async def test_utterances_before_a_language_change_do_not_affect_those_after_it() -> None:
    received_options: list[tuple[str | None, str | None]] = []
    answer = asyncio.Event()

    class Spanish(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            received_options.append((asked.language, asked.options.expected_language))
            if len(received_options) > 1:
                await answer.wait()
            return Recognition("hola", "es", 0.9, 0.0, None, language_probability=0.9)

    async with session(Spanish()) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await running.push(SPEECH + SILENCE)
        await asyncio.sleep(0.05)
        await running.push(SPEECH + SILENCE + SPEECH)  # one with the model, and one in progress
        running.set_language("auto")
        await running.push(SILENCE)
        answer.set()
        await asyncio.sleep(0.05)
        await running.push(SPEECH + SILENCE)
        await asyncio.sleep(0.05)
        await running.push(SPEECH + SILENCE)
        await running.finish()
    assert len(utterances_of(events.result())) == 5
    assert received_options == [(None, None), (None, "es"), (None, "es"), (None, None), (None, "es")]


async def test_speech_events_can_be_disabled() -> None:
    events = await run(ScriptedRecognizer(), SPEECH, SILENCE, options=SessionOptions(vad_events=False))
    assert [type(e) for e in events] == [FinalResult, Ended]


async def test_half_a_sample_is_refused() -> None:
    async with session(ScriptedRecognizer()) as running:
        with pytest.raises(InvalidAudio, match="3 bytes are not a whole number of 2-byte frames"):
            await running.push(b"abc")


async def test_time_counts_sample_frames_on_the_wire() -> None:
    options = SessionOptions(audio=AudioFormat(Encoding.MULAW, sample_rate=8000, channels=2))
    events = await run(ScriptedRecognizer(), b"\xff" * 16_001 + b"\xff", options=options)
    assert isinstance(events[-1], Ended)
    assert events[-1].total_duration == 8001 / 8000


async def test_an_unread_session_makes_push_wait() -> None:
    recognizer = ScriptedRecognizer()
    async with session(recognizer) as running:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(200):
                    await running.push(SPEECH + SILENCE)
        assert len(recognizer.calls) < 60


async def test_leaving_a_session_early_drops_its_work() -> None:
    recognizer = ScriptedRecognizer([60, 60, 60])
    async with session(recognizer) as running:
        await running.push(SPEECH + SILENCE)
        await running.push(SPEECH + SILENCE)
        await asyncio.sleep(0)
        assert recognizer.running == 2
    assert recognizer.running == 0


async def test_a_failing_model_ends_the_session_after_the_finals_before_it() -> None:
    class FailingThird(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            if len(self.calls) == 2:
                raise RuntimeError("model broke")
            return await super().answer(asked)

    events: list[Event] = []
    with pytest.raises(ExceptionGroup) as raised:
        async with session(FailingThird([0.1, 0.1])) as running:
            await running.push((SPEECH + SILENCE) * 3)
            async for event in running:
                events.append(event)  # noqa: PERF401  what came before the error counts
    assert raised.group_contains(RuntimeError, match="model broke")
    assert texts_of(events) == ["utterance 1", "utterance 2"]


ACKS = SessionOptions(acks=True)


def acks_of(events: list[Event]) -> list[tuple[float, float]]:
    return [(e.received_seconds, e.processed_seconds) for e in events if isinstance(e, Acknowledged)]


async def test_without_acks_nothing_is_acknowledged() -> None:
    assert acks_of(await run(ScriptedRecognizer(), SPEECH, SILENCE)) == []


async def test_the_last_ack_covers_all_but_unconfirmed_speech() -> None:
    events = await run(ScriptedRecognizer([0.05]), SPEECH + SILENCE + pcm(0.0101, 0.5), options=ACKS)
    received, processed = acks_of(events)[-1]
    assert received == pytest.approx(2.0101, abs=1e-4)
    assert 1.7 < processed < 1.9
    events = await run(ScriptedRecognizer([0.05]), SPEECH + SILENCE + SPEECH, options=ACKS)
    assert acks_of(events)[-1] == (3.0, 3.0)
    events = await run(ScriptedRecognizer([0.05]), SPEECH + SILENCE + pcm(0.2, 0.5), options=ACKS)
    assert 1.7 < acks_of(events)[-1][1] < 1.9, "speech that has hardly begun is in no final"
    assert [type(e) for e in events[-2:]] == [Acknowledged, Ended]


async def test_speech_without_a_final_is_not_acknowledged_as_processed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "_ACK_SECONDS", 0.02)
    was_called, answer = asyncio.Event(), asyncio.Event()

    class Waiting(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            was_called.set()
            await answer.wait()
            return await super().answer(asked)

    events: list[Event] = []

    async def read(running: Session) -> None:
        async for event in running:
            events.append(event)  # noqa: PERF401 - looked at while it grows

    async with session(Waiting(), ACKS) as running, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(running))
        await running.push(SILENCE + SPEECH)
        await asyncio.sleep(0.1)
        received, processed = acks_of(events)[-1]
        assert received == 2
        assert 0.7 < processed <= 1  # speech from 1 s on may be in an utterance to come
        await running.push(SILENCE + SILENCE)
        await was_called.wait()
        await asyncio.sleep(0.1)
        assert acks_of(events)[-1] == (4, processed)
        answer.set()
        await asyncio.sleep(0.1)
        received, processed = acks_of(events)[-1]
        assert received == 4
        assert 3.5 < processed <= 4
        final = next(number for number, e in enumerate(events) if isinstance(e, FinalResult))
        acked = next(n for n, e in enumerate(events) if isinstance(e, Acknowledged) and e.processed_seconds > 1)
        assert final < acked
        await running.finish()
        await reading
    acks = acks_of(events)
    assert acks == sorted(acks)
    assert all(processed <= received for received, processed in acks)


async def test_acknowledgements_without_progress_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_ACK_SECONDS", 0.01)
    events: list[Event] = []
    async with session(ScriptedRecognizer(), ACKS) as running, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(collect(running))
        await running.push(SILENCE)
        await asyncio.sleep(0.5)
        await running.finish()
        events = await reading
    assert 2 < len(acks_of(events)) <= 12


async def test_the_announced_end_is_an_event_in_order() -> None:
    async with session(ScriptedRecognizer()) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await running.push(SPEECH)
        await running.announce_end("shutdown", 30)
        await running.finish()
    assert [type(e) for e in events.result()] == [SpeechStarted, Terminating, SpeechEnded, FinalResult, Ended]


async def test_an_engine_without_room_delays_a_session_and_does_not_end_it() -> None:
    class FullAtFirst(ScriptedRecognizer):
        refusals = 2

        async def answer(self, asked: Asked) -> Recognition:
            if self.refusals:
                self.refusals -= 1
                raise QueueFull("no room")
            return await super().answer(asked)

    events = await run(FullAtFirst(), SPEECH, SILENCE)
    assert texts_of(events) == ["utterance 1"]


async def test_at_most_four_utterances_of_a_session_are_with_the_model() -> None:
    recognizer = ScriptedRecognizer([60] * 20)
    async with session(recognizer) as running:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await running.push((SPEECH + SILENCE) * 10)
        assert recognizer.running == 4


async def test_much_audio_at_once_lets_other_tasks_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with session(ScriptedRecognizer()) as running:
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        await running.push(SILENCE * 10)
        task.cancel()
    assert turns > 30


@pytest.fixture
def fast_endpoint_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio ends after a tenth of a second without any, and the requested silence."""
    monkeypatch.setattr(session_module, "TICK_SECONDS", 0.01)
    for name, seconds in (("TICK_SECONDS", 0.01), ("_JITTER_SECONDS", 0.1), ("_UNKNOWN_SECONDS", 0.0)):
        monkeypatch.setattr(endpoint_timer, name, seconds)


SHORT_SILENCE = SessionOptions(vad=VadOptions(min_silence_ms=50))


async def wait_for_events(events: list[Event], kind: type[Event], count: int = 1) -> None:
    async with asyncio.timeout(10):
        while sum(isinstance(event, kind) for event in events) < count:  # noqa: ASYNC110 - a list cannot be awaited
            await asyncio.sleep(0.01)


async def collect_into(running: Session, events: list[Event]) -> None:
    async for event in running:
        events.append(event)  # noqa: PERF401 - looked at while it grows


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_an_utterance_ends_by_wall_time_without_more_audio() -> None:
    events: list[Event] = []
    async with session(ScriptedRecognizer(), SHORT_SILENCE) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        await running.push(SILENCE + SPEECH)
        await wait_for_events(events, FinalResult)
        assert [type(e) for e in events] == [SpeechStarted, SpeechEnded, FinalResult]
        await running.push(SPEECH)
        await wait_for_events(events, FinalResult, 2)
        await running.finish()
    kinds = [type(e) for e in events]
    assert kinds == [SpeechStarted, SpeechEnded, FinalResult, SpeechStarted, SpeechEnded, FinalResult, Ended]
    first, second = utterances_of(events)
    assert first.end == second.start == 2.0, "times are those of the audio, not wall time"
    assert second.end == 3.0


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_messages_without_audio_do_not_delay_the_end() -> None:
    events: list[Event] = []
    async with session(ScriptedRecognizer(), SHORT_SILENCE) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        await running.push(SPEECH)
        async with asyncio.timeout(10):
            while not any(isinstance(e, FinalResult) for e in events):
                await running.push(b"")
                await asyncio.sleep(0.005)
        await running.finish()


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_a_flush_after_an_end_by_wall_time_follows_the_final() -> None:
    events: list[Event] = []
    async with session(ScriptedRecognizer([0.3]), SHORT_SILENCE) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        await running.push(SPEECH)
        await wait_for_events(events, SpeechEnded)
        await running.flush()
        await running.finish()
    assert [type(e) for e in events] == [SpeechStarted, SpeechEnded, FinalResult, Flushed, Ended]


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_an_utterance_ended_by_wall_time_is_acknowledged_as_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_ACK_SECONDS", 0.02)
    events: list[Event] = []
    options = replace(SHORT_SILENCE, acks=True)
    async with session(ScriptedRecognizer(), options) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        await running.push(SPEECH)
        await wait_for_events(events, FinalResult)
        final = next(number for number, e in enumerate(events) if isinstance(e, FinalResult))
        async with asyncio.timeout(10):
            while (1.0, 1.0) not in acks_of(events):  # noqa: ASYNC110 - a list cannot be awaited
                await asyncio.sleep(0.01)
        assert (1.0, 1.0) not in acks_of(events[:final])
        await running.finish()


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_unconfirmed_speech_waits_for_more_audio() -> None:
    events: list[Event] = []
    async with session(ScriptedRecognizer(), SHORT_SILENCE) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        await running.push(SILENCE + pcm(0.2, 0.5))
        await asyncio.sleep(0.5)
        assert events == []
        await running.push(SPEECH + SILENCE)
        await running.finish()
    (final,) = utterances_of(events)
    assert final.start < 1.0


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_wall_time_does_not_count_while_the_session_waits_for_its_model() -> None:
    """Continuous speech is cut, and the fifth segment waits until one of four is transcribed, which is no pause."""
    events: list[Event] = []
    recognizer = ScriptedRecognizer([0.5] * 4)
    options = SessionOptions(vad=VadOptions(min_silence_ms=50, max_utterance_seconds=1))
    async with session(recognizer, options) as running, asyncio.TaskGroup() as tasks:
        tasks.create_task(collect_into(running, events))
        for _ in range(3):
            await running.push(SPEECH * 4)
        await running.finish()
    assert len(recognizer.calls) >= 12
    assert sum(isinstance(e, SpeechEnded) for e in events) == 1


@pytest.mark.usefixtures("fast_endpoint_timer")
async def test_leaving_a_session_that_waits_for_its_model_ends_it() -> None:
    recognizer = ScriptedRecognizer([60] * 20)
    async with asyncio.timeout(10):
        async with session(recognizer, SHORT_SILENCE) as running:
            await running.push((SPEECH + pcm(0.2, 0.0)) * 4 + SPEECH)
            await asyncio.sleep(0.5)
            assert recognizer.running == 4
    assert recognizer.running == 0


class Suppressing(ScriptedRecognizer):
    """Suppresses all but the second utterance."""

    async def answer(self, asked: Asked) -> Recognition:
        recognition = await super().answer(asked)
        suppressed = {"utterance 1": "no_speech", "utterance 3": None}
        if recognition.text not in suppressed:
            return recognition
        return replace(recognition, text="", suppressed=suppressed[recognition.text])


async def test_suppressed_speech_is_reported_in_place_of_its_final() -> None:
    recognizer = Suppressing([0.1, 0.0, 0.1])
    async with session(recognizer) as running, asyncio.TaskGroup() as tasks:
        collected = tasks.create_task(collect(running))
        await running.push(SPEECH + SILENCE)
        await running.push(SPEECH + SILENCE)
        await running.push(SPEECH)
        await running.flush()
        await running.finish()
    events = [e for e in collected.result() if not isinstance(e, SpeechStarted | SpeechEnded)]
    assert [type(e) for e in events] == [SpeechSuppressed, FinalResult, SpeechSuppressed, Flushed, Ended]
    first, _, third, *_ = events
    assert first == SpeechSuppressed(0.0, pytest.approx(1.2, abs=0.05), "no_speech")
    assert third == SpeechSuppressed(pytest.approx(3.8, abs=0.05), 5.0, "empty")
    assert events[-1].transcript == "utterance 2"


async def test_suppressed_speech_is_reported_without_speech_events_too() -> None:
    events = await run(Suppressing(), SPEECH, SILENCE, options=SessionOptions(vad_events=False))
    assert [type(e) for e in events] == [SpeechSuppressed, Ended]


async def test_a_file_sent_as_raw_samples_is_reported_and_transcribed() -> None:
    events = await run(ScriptedRecognizer(), b"RIFF\x24\0\0\x80WA", b"VEfmt ", bytes(32), SPEECH, SILENCE)
    assert events[0] == ContainerFound("wav")
    assert [type(e) for e in events[1:]] == [SpeechStarted, SpeechEnded, FinalResult, Ended]


async def test_inverted_channels_are_transcribed() -> None:
    loud = np.full(16_000, 16_000, "<i2")
    stereo = np.stack((loud, -loud), axis=1).tobytes()
    options = SessionOptions(audio=AudioFormat(channels=2))
    events = await run(ScriptedRecognizer(), stereo, bytes(len(stereo)), options=options)
    assert texts_of(events) == ["utterance 1"]


CHUNK = pcm(0.1, 0.5)


async def push_and_flush(recognizer: ScriptedRecognizer, seconds: float) -> list[Event]:
    """Pushes speech without a pause, with a flush every tenth of a second."""
    options = SessionOptions(vad=VadOptions(min_speech_ms=50), acks=True)
    async with session(recognizer, options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        for _ in range(round(10 * seconds)):
            await running.push(CHUNK)
            await running.flush()
        await running.finish()
    return events.result()


async def test_many_flushes_cost_two_utterances_per_second_and_lose_no_audio() -> None:
    recognizer = ScriptedRecognizer([0.02] * 100)
    events = await push_and_flush(recognizer, 20)
    assert len(recognizer.calls) <= BURST + PER_SECOND * 20 + 1
    finals = utterances_of(events)
    assert finals[0].start == 0
    assert finals[-1].end == 20
    for earlier, later in itertools.pairwise(finals):
        assert earlier.end == later.start


async def test_each_of_many_flushes_is_answered_once_after_its_final() -> None:
    events = await push_and_flush(ScriptedRecognizer([0.02] * 100), 20)
    answers = [event.timestamp for event in events if isinstance(event, Flushed)]
    assert answers == pytest.approx([0.1 * number for number in range(1, 201)])
    text_until = 0.0
    for event in events:
        if isinstance(event, FinalResult):
            text_until = event.utterance.end
        if isinstance(event, Flushed):
            assert event.timestamp <= text_until + 0.001


async def test_a_held_segment_is_not_acknowledged_as_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_ACK_SECONDS", 0.001)
    text_until = 0.0
    for event in await push_and_flush(ScriptedRecognizer([0.02] * 100), 10):
        if isinstance(event, FinalResult):
            text_until = event.utterance.end
        if isinstance(event, Acknowledged):
            assert event.processed_seconds <= text_until + 0.001


async def test_a_held_flush_is_answered_without_more_audio() -> None:
    options = SessionOptions(vad=VadOptions(min_speech_ms=50))
    async with session(ScriptedRecognizer(), options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        for _ in range(30):
            await running.push(CHUNK)
            await running.flush()
        async with asyncio.timeout(5):
            while running._held is not None:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        await running.finish()
    assert len([event for event in events.result() if isinstance(event, Flushed)]) == 30


async def test_a_session_that_flushes_after_each_sentence_is_not_delayed() -> None:
    recognizer = ScriptedRecognizer()
    options = SessionOptions(vad=VadOptions(min_speech_ms=50))
    async with session(recognizer, options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        for number in range(60):
            await running.push(pcm(0.5, 0.5))
            await running.flush()
            assert len(recognizer.calls) >= number
        await running.finish()
    finals = utterances_of(events.result())
    assert [final.end for final in finals] == pytest.approx([0.5 * number for number in range(1, 61)])


async def test_flushes_without_audio_wait_for_earlier_ones() -> None:
    options = SessionOptions(vad=VadOptions(min_speech_ms=50))
    async with session(ScriptedRecognizer([0.05] * 100), options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        for _ in range(12):
            await running.push(CHUNK)
            await running.flush()
        for _ in range(1000):
            await running.flush()
            assert running._held is None or len(running._held.flushes) <= MAX_FLUSHES
        await running.finish()
    assert len([event for event in events.result() if isinstance(event, Flushed)]) == 1012


async def test_finals_carry_the_detected_speech_and_partials_do_not() -> None:
    speech_options: dict[str, list[object]] = {"final": [], "partial": []}

    class Listening(ScriptedRecognizer):
        async def answer(self, asked: Asked) -> Recognition:
            speech_options["final"].append(asked.options.speech)
            return await super().answer(asked)

        async def answer_partial(self, asked: Asked) -> Recognition | None:
            speech_options["partial"].append(asked.options.speech)
            return None

    async with session(Listening()) as running:
        await running.push(SILENCE + SPEECH + SILENCE)
        await running.finish()
        assert [event async for event in running]
    ((speech,),) = speech_options["final"]  # type: ignore[misc]
    assert [round(seconds, 1) for seconds in speech] == [0.2, 1.2]
    assert set(speech_options["partial"]) <= {None}
