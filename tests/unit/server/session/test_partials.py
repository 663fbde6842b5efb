"""Sessions and their partials, with a recogniser that returns a word for every quarter of a second."""

import asyncio

import pytest

from server.audio.decoder import Samples
from server.inference.errors import EngineStopped
from server.inference.recognition import Recognition
from server.session.events import Ended, Event, FinalResult, PartialResult, SpeechEnded, SpeechStarted
from server.session.options import SessionOptions, VadOptions
from server.session.session import Session
from tests.recognizers import Asked, Recognizer
from tests.unit.server.session.test_session import SILENCE, LoudnessVad, collect, pcm

WORDS = [f"w{number}" for number in range(200)]


class PrefixRecognizer(Recognizer):
    """Returns partials that are right except for the last word."""

    def __init__(self) -> None:
        self.partials: list[int] = []
        self.drafts: list[tuple[int, ...]] = []
        self.certain = ""
        self.outcomes: list[str | Exception | None] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.finals = 0
        self.sessions: set[object] = set()

    async def answer(self, asked: Asked) -> Recognition:
        self.finals += 1
        self.sessions.add(asked.session)
        return Recognition(f"final {self.finals}", "en", 0.9, 0.0, None)

    async def answer_partial(self, asked: Asked) -> Recognition | None:
        self.partials.append(len(asked.samples))
        self.drafts.append(asked.options.draft)
        self.sessions.add(asked.session)
        await self.may_answer.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else first_words(asked.samples)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            return None
        written = (len(asked.samples),)
        return Recognition(outcome, "en", 0.9, 0.0, None, certain_prefix=self.certain, decoded_tokens=written)


def first_words(samples: Samples) -> str:
    count = len(samples) // 4000
    return " ".join([*WORDS[:count], f"torn{len(samples)}"])


def session(recognizer: PrefixRecognizer, options: SessionOptions | None = None) -> Session:
    return Session(options or SessionOptions(), LoudnessVad(), recognizer)  # type: ignore[arg-type]


async def push_live(running: Session, audio: bytes) -> None:
    """Pushes pieces of 100 ms, and lets other tasks run in between."""
    for start in range(0, len(audio), 3200):
        await running.push(audio[start : start + 3200])
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def without_wall_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio arrives faster in these tests, and has as many passes all the same."""
    monkeypatch.setattr("server.session.cadence._MIN_WALL_TIME_SHARE", 0.0)


async def run(recognizer: PrefixRecognizer, audio: bytes, options: SessionOptions | None = None) -> list[Event]:
    async with session(recognizer, options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await push_live(running, audio)
        await running.finish()
    return events.result()


def kinds(events: list[Event]) -> list[str]:
    """Their types in order, several partials in a row as one."""
    names = [type(event).__name__ for event in events]
    return [name for index, name in enumerate(names) if name != "PartialResult" or names[index - 1] != "PartialResult"]


async def test_partials_come_between_start_and_end_of_speech_and_none_after() -> None:
    events = await run(PrefixRecognizer(), (SILENCE + pcm(3, 0.5) + SILENCE) * 2)
    one = ["SpeechStarted", "PartialResult", "SpeechEnded", "FinalResult"]
    assert kinds(events) == [*one, *one, "Ended"]


async def test_partials_grow_by_agreed_words_and_lie_within_the_utterance() -> None:
    events = await run(PrefixRecognizer(), SILENCE + pcm(4, 0.5) + SILENCE)
    started = next(event for event in events if isinstance(event, SpeechStarted))
    ended = next(event for event in events if isinstance(event, SpeechEnded))
    partials = [event for event in events if isinstance(event, PartialResult)]
    assert len(partials) >= 5
    for partial in partials:
        count = len(partial.text.split())
        assert partial.text == " ".join(WORDS[:count])
        assert partial.start == started.timestamp
        assert partial.start < partial.end <= ended.timestamp
    assert sorted({len(partial.text) for partial in partials}) == [len(partial.text) for partial in partials]
    assert partials[0].end - 1.0 < 0.8, "speech begins at 1 s"


async def test_each_pass_has_the_tokens_of_the_previous_pass_as_draft() -> None:
    recognizer = PrefixRecognizer()
    await run(recognizer, (SILENCE + pcm(2, 0.5) + SILENCE) * 2)
    firsts = [index for index, draft in enumerate(recognizer.drafts) if not draft]
    assert len(firsts) == 2
    for index, draft in enumerate(recognizer.drafts):
        assert index in firsts or draft == (recognizer.partials[index - 1],)


async def test_the_certain_prefix_of_the_first_pass_is_sent_at_once() -> None:
    slow, sure = PrefixRecognizer(), PrefixRecognizer()
    sure.certain = WORDS[0]
    audio = SILENCE + pcm(2, 0.5) + SILENCE
    one = next(event for event in await run(sure, audio) if isinstance(event, PartialResult))
    other = next(event for event in await run(slow, audio) if isinstance(event, PartialResult))
    assert one.text == WORDS[0]
    assert one.end < other.end


async def test_partials_do_not_change_the_final() -> None:
    with_partials = await run(PrefixRecognizer(), SILENCE + pcm(3, 0.5) + SILENCE)
    without = await run(PrefixRecognizer(), SILENCE + pcm(3, 0.5) + SILENCE, SessionOptions(partials=False))
    assert [event for event in with_partials if not isinstance(event, PartialResult)] == without


async def test_a_session_without_partials_computes_none() -> None:
    recognizer = PrefixRecognizer()
    events = await run(recognizer, SILENCE + pcm(3, 0.5) + SILENCE, SessionOptions(partials=False))
    assert recognizer.partials == []
    assert kinds(events) == ["SpeechStarted", "SpeechEnded", "FinalResult", "Ended"]


async def test_finals_and_partials_of_a_session_have_one_owner() -> None:
    one, other = PrefixRecognizer(), PrefixRecognizer()
    await run(one, SILENCE + pcm(1, 0.5) + SILENCE + pcm(1, 0.5))
    await run(other, SILENCE + pcm(1, 0.5))
    assert len(one.sessions) == len(other.sessions) == 1
    assert one.sessions != other.sessions


async def test_silence_after_speech_has_no_passes() -> None:
    recognizer = PrefixRecognizer()
    await run(recognizer, pcm(1, 0.5) + SILENCE * 3)
    assert max(recognizer.partials) < 16_000 * 1.2


async def test_an_utterance_after_a_cut_has_its_own_partials() -> None:
    options = SessionOptions(vad=VadOptions(max_utterance_seconds=2))
    events = await run(PrefixRecognizer(), pcm(6, 0.5), options)
    finals = [event.utterance for event in events if isinstance(event, FinalResult)]
    assert len(finals) >= 3
    partials = [event for event in events if isinstance(event, PartialResult)]
    assert {partial.start for partial in partials} >= {final.start for final in finals[:2]}
    for index, event in enumerate(events):
        if isinstance(event, FinalResult):
            assert all(e.start >= event.utterance.end for e in events[index:] if isinstance(e, PartialResult))


async def test_a_pass_that_ends_after_its_utterance_is_not_sent() -> None:
    recognizer = PrefixRecognizer()
    recognizer.may_answer.clear()
    async with session(recognizer) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await push_live(running, pcm(2, 0.5) + SILENCE)
        recognizer.may_answer.set()
        await asyncio.sleep(0.05)
        await running.finish()
    assert recognizer.partials
    assert kinds(events.result()) == ["SpeechStarted", "SpeechEnded", "FinalResult", "Ended"]


@pytest.mark.parametrize("outcome", [None, "", EngineStopped("stopping"), ValueError("a mistake of ours")])
async def test_a_failed_pass_does_not_affect_the_final(outcome: str | Exception | None) -> None:
    recognizer = PrefixRecognizer()
    recognizer.outcomes = [outcome] * 100
    events = await run(recognizer, SILENCE + pcm(3, 0.5) + SILENCE)
    assert recognizer.partials
    assert kinds(events) == ["SpeechStarted", "SpeechEnded", "FinalResult", "Ended"]


async def test_a_client_that_does_not_read_misses_only_partials() -> None:
    recognizer = PrefixRecognizer()
    async with session(recognizer) as running:
        for _ in range(3):
            await push_live(running, pcm(8, 0.5) + SILENCE)
        finishing = asyncio.create_task(running.finish())
        events = await collect(running)
        await finishing
    assert [type(event) for event in events if not isinstance(event, PartialResult)] == [
        *[SpeechStarted, SpeechEnded, FinalResult] * 3,
        Ended,
    ]


async def test_leaving_a_session_early_drops_its_passes() -> None:
    recognizer = PrefixRecognizer()
    recognizer.may_answer.clear()
    before = asyncio.all_tasks()
    async with session(recognizer) as running:
        await push_live(running, pcm(2, 0.5))
        assert recognizer.partials
    assert asyncio.all_tasks() <= before
