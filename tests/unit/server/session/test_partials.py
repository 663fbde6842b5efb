"""Sessions and their partials, with a recogniser that hears a word for every quarter of a second."""

import asyncio

import pytest

from server.audio.decoder import Samples
from server.inference.errors import EngineStopped
from server.inference.recognition import Recognition
from server.session.events import Ended, Event, Final, Partial, SpeechEnded, SpeechStarted
from server.session.options import SessionOptions, VadOptions
from server.session.session import Session
from tests.recognizers import Asked, Recognizer
from tests.unit.server.session.test_session import SILENCE, LoudnessVad, collect, pcm

WORDS = [f"w{number}" for number in range(200)]


class Listener(Recognizer):
    """What it hears of the beginning is right but for the last word."""

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
        outcome = self.outcomes.pop(0) if self.outcomes else heard(asked.samples)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            return None
        written = (len(asked.samples),)
        return Recognition(outcome, "en", 0.9, 0.0, None, certain=self.certain, written=written)


def heard(samples: Samples) -> str:
    count = len(samples) // 4000
    return " ".join([*WORDS[:count], f"torn{len(samples)}"])


def session(listener: Listener, options: SessionOptions | None = None) -> Session:
    return Session(options or SessionOptions(), LoudnessVad(), listener)  # type: ignore[arg-type]


async def live(running: Session, audio: bytes) -> None:
    """Pushes pieces of 100 ms, and lets everything that can happen in between."""
    for start in range(0, len(audio), 3200):
        await running.push(audio[start : start + 3200])
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def as_fast_as_it_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio comes faster here, and is tried as often all the same."""
    monkeypatch.setattr("server.session.cadence._HASTE", 0.0)


async def run(listener: Listener, audio: bytes, options: SessionOptions | None = None) -> list[Event]:
    async with session(listener, options) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await live(running, audio)
        await running.finish()
    return events.result()


def kinds(events: list[Event]) -> list[str]:
    """Their types in order, several partials in a row as one."""
    names = [type(event).__name__ for event in events]
    return [name for index, name in enumerate(names) if name != "Partial" or names[index - 1] != "Partial"]


async def test_partials_come_between_start_and_end_of_speech_and_none_after() -> None:
    events = await run(Listener(), (SILENCE + pcm(3, 0.5) + SILENCE) * 2)
    one = ["SpeechStarted", "Partial", "SpeechEnded", "Final"]
    assert kinds(events) == [*one, *one, "Ended"]


async def test_partials_grow_hold_what_two_tries_agree_on_and_lie_within_the_utterance() -> None:
    events = await run(Listener(), SILENCE + pcm(4, 0.5) + SILENCE)
    started = next(event for event in events if isinstance(event, SpeechStarted))
    ended = next(event for event in events if isinstance(event, SpeechEnded))
    partials = [event for event in events if isinstance(event, Partial)]
    assert len(partials) >= 5
    for partial in partials:
        count = len(partial.text.split())
        assert partial.text == " ".join(WORDS[:count])
        assert partial.start == started.timestamp
        assert partial.start < partial.end <= ended.timestamp
    assert sorted({len(partial.text) for partial in partials}) == [len(partial.text) for partial in partials]
    assert partials[0].end - 1.0 < 0.8, "speech begins at 1 s"


async def test_each_try_has_what_the_one_before_it_wrote_as_draft_and_the_first_of_an_utterance_none() -> None:
    listener = Listener()
    await run(listener, (SILENCE + pcm(2, 0.5) + SILENCE) * 2)
    firsts = [index for index, draft in enumerate(listener.drafts) if not draft]
    assert len(firsts) == 2
    for index, draft in enumerate(listener.drafts):
        assert index in firsts or draft == (listener.partials[index - 1],)


async def test_what_the_first_try_is_certain_of_is_told_at_once() -> None:
    slow, sure = Listener(), Listener()
    sure.certain = WORDS[0]
    audio = SILENCE + pcm(2, 0.5) + SILENCE
    one = next(event for event in await run(sure, audio) if isinstance(event, Partial))
    other = next(event for event in await run(slow, audio) if isinstance(event, Partial))
    assert one.text == WORDS[0]
    assert one.end < other.end


async def test_a_partial_changes_nothing_in_the_final() -> None:
    with_partials = await run(Listener(), SILENCE + pcm(3, 0.5) + SILENCE)
    without = await run(Listener(), SILENCE + pcm(3, 0.5) + SILENCE, SessionOptions(partials=False))
    assert [event for event in with_partials if not isinstance(event, Partial)] == without


async def test_a_session_that_wants_no_partials_has_none_computed() -> None:
    listener = Listener()
    events = await run(listener, SILENCE + pcm(3, 0.5) + SILENCE, SessionOptions(partials=False))
    assert listener.partials == []
    assert kinds(events) == ["SpeechStarted", "SpeechEnded", "Final", "Ended"]


async def test_finals_and_partials_of_a_session_are_known_as_its_own() -> None:
    one, other = Listener(), Listener()
    await run(one, SILENCE + pcm(1, 0.5) + SILENCE + pcm(1, 0.5))
    await run(other, SILENCE + pcm(1, 0.5))
    assert len(one.sessions) == len(other.sessions) == 1
    assert one.sessions != other.sessions


async def test_silence_after_speech_is_not_tried() -> None:
    listener = Listener()
    await run(listener, pcm(1, 0.5) + SILENCE * 3)
    assert max(listener.partials) < 16_000 * 1.2


async def test_an_utterance_after_a_cut_has_partials_of_its_own() -> None:
    options = SessionOptions(vad=VadOptions(max_utterance_seconds=2))
    events = await run(Listener(), pcm(6, 0.5), options)
    finals = [event for event in events if isinstance(event, Final)]
    assert len(finals) >= 3
    partials = [event for event in events if isinstance(event, Partial)]
    assert {partial.start for partial in partials} >= {final.start for final in finals[:2]}
    for index, event in enumerate(events):
        if isinstance(event, Final):
            assert all(e.start >= event.end for e in events[index:] if isinstance(e, Partial))


async def test_a_try_that_answers_after_the_utterance_ended_is_not_told() -> None:
    listener = Listener()
    listener.may_answer.clear()
    async with session(listener) as running, asyncio.TaskGroup() as tasks:
        events = tasks.create_task(collect(running))
        await live(running, pcm(2, 0.5) + SILENCE)
        listener.may_answer.set()
        await asyncio.sleep(0.05)
        await running.finish()
    assert listener.partials
    assert kinds(events.result()) == ["SpeechStarted", "SpeechEnded", "Final", "Ended"]


@pytest.mark.parametrize("outcome", [None, "", EngineStopped("stopping"), ValueError("a mistake of ours")])
async def test_a_try_that_comes_to_nothing_harms_nothing(outcome: str | Exception | None) -> None:
    listener = Listener()
    listener.outcomes = [outcome] * 100
    events = await run(listener, SILENCE + pcm(3, 0.5) + SILENCE)
    assert listener.partials
    assert kinds(events) == ["SpeechStarted", "SpeechEnded", "Final", "Ended"]


async def test_a_client_that_does_not_read_gets_no_partials_and_all_else() -> None:
    listener = Listener()
    async with session(listener) as running:
        for _ in range(3):
            await live(running, pcm(8, 0.5) + SILENCE)
        finishing = asyncio.create_task(running.finish())
        events = await collect(running)
        await finishing
    assert [type(event) for event in events if not isinstance(event, Partial)] == [
        *[SpeechStarted, SpeechEnded, Final] * 3,
        Ended,
    ]


async def test_leaving_a_session_early_drops_its_tries() -> None:
    listener = Listener()
    listener.may_answer.clear()
    before = asyncio.all_tasks()
    async with session(listener) as running:
        await live(running, pcm(2, 0.5))
        assert listener.partials
    assert asyncio.all_tasks() <= before
