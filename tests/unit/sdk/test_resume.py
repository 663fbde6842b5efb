"""Whatever breaks, the caller gets one transcription: the SDK against a service that breaks as it is told to."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import grpc
import pytest
from dalston import (
    Acknowledged,
    AsyncClient,
    AuthenticationError,
    Client,
    ConnectionLost,
    Ended,
    Event,
    FinalResult,
    Flushed,
    InvalidRequest,
    NoCapacity,
    Reconnecting,
    Resumed,
    ServerError,
    SessionBegan,
    SessionResumed,
    Warned,
)
from dalston.backoff import Backoff

from tests.unit.sdk.service import FRAME, LOST, RATE, Failure, Recorded, Service, serving, speech

UTTERANCES = [(0.5 + n % 3 * 0.4, 0.6 + n % 5 * 0.7) for n in range(40)]
AUDIO = speech(UTTERANCES)
SAID = [f"{n}:{round(length * RATE)}" for n, (_, length) in enumerate(UTTERANCES)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dalston.live.resumable_session._BACKOFF", Backoff(first=0.005, longest=0.02))


def pieces(audio: bytes = AUDIO) -> Iterator[bytes]:
    for start in range(0, len(audio), 8000):
        yield audio[start : start + 8000]


async def transcribe(service: Service, audio: Any = None, **options: Any) -> list[Event]:
    async with serving(service) as url, AsyncClient(url) as client:
        return [event async for event in client.transcribe(audio or pieces(), **{"language": "en"} | options)]


def check_whole(events: list[Event], service: Service, *, stores_audio: bool = True) -> None:
    """Nothing is missing, doubled or moved."""
    finals = [event for event in events if isinstance(event, FinalResult)]
    assert [final.text for final in finals] == SAID
    time = 0.0
    for final, (silence, length) in zip(finals, UTTERANCES, strict=True):
        assert final.start == pytest.approx(time + silence, abs=1e-4)
        assert final.end == pytest.approx(time + silence + length, abs=1e-4)
        time += silence + length
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert ended.text == " ".join(SAID)
    assert ended.duration == pytest.approx(len(AUDIO) / FRAME / RATE)
    if stores_audio:
        assert service.last.joined() == AUDIO


def breaking(*moments: tuple[str, int, Failure]) -> Any:
    """Fails at the n-th of some moments of all sessions together."""
    counts: dict[str, int] = {}

    def script(_service: Service, _session: Recorded | None, moment: str) -> Failure | None:
        counts[moment] = counts.get(moment, 0) + 1
        return next((f for name, count, f in moments if name == moment and count == counts[moment]), None)

    return script


async def test_without_a_fault_there_is_one_session() -> None:
    service = Service()
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) == 1
    assert isinstance(events[0], SessionBegan)
    assert not [event for event in events if isinstance(event, Reconnecting | Resumed | Warned)]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED"])
@pytest.mark.parametrize("stores_audio", [True, False])
async def test_a_status_of_nobody_is_a_lost_connection(code: str, stores_audio: bool) -> None:
    service = Service(breaking(("audio", 100, Failure(grpc.StatusCode[code]))), stored_lag=RATE)
    events = await transcribe(service, store_audio=stores_audio)
    check_whole(events, service, stores_audio=stores_audio)
    (resumed,) = [event for event in events if isinstance(event, Resumed)]
    assert (resumed.previous_session_id, resumed.session_id) == (service.sessions[0].id, service.sessions[1].id)
    assert resumed.position == service.sessions[1].resume_from / FRAME / RATE > 0
    assert events[-1].session_ids == (service.sessions[0].id, service.sessions[1].id)


@pytest.mark.parametrize("seed", range(8))
async def test_cut_anywhere_and_often_nothing_is_lost_or_doubled(seed: int) -> None:
    dice = random.Random(seed)

    def script(service: Service, _session: Recorded | None, _moment: str) -> Failure | None:
        return LOST if dice.random() < 0.04 and len(service.configs) < 60 else None

    service = Service(script, stored_lag=dice.choice([0, 3 * RATE, 20 * RATE]))
    stores_audio = bool(seed % 2)
    events = await transcribe(service, store_audio=stores_audio, wait=10)
    assert len(service.sessions) > 2
    check_whole(events, service, stores_audio=stores_audio)
    acknowledged = [event for event in events if isinstance(event, Acknowledged)]
    for one, other in pairwise(acknowledged):
        assert one.received <= other.received
        assert one.processed <= other.processed
        assert one.stored <= other.stored


async def test_a_session_that_is_not_taken_for_dead_yet_is_tried_again() -> None:
    active = Failure(grpc.StatusCode.ABORTED, "SESSION_ACTIVE")
    service = Service(breaking(("audio", 50, LOST), ("config", 2, active), ("config", 3, active)))
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert [event.attempt for event in events if isinstance(event, Reconnecting)] == [1, 2, 3]


async def test_a_session_whose_begin_got_lost_is_no_obstacle() -> None:
    service = Service(breaking(("audio", 50, LOST), ("begun", 2, LOST)))
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) == 3


async def test_a_session_that_began_without_our_knowing_is_gone_on_with() -> None:
    asked = 0

    def script(service: Service, session: Recorded | None, moment: str) -> Failure | None:
        nonlocal asked
        asked += moment == "audio"
        if asked == 50 and moment == "audio":
            return LOST
        if moment == "begun" and session is not None and len(service.sessions) == 2:
            session.stored = FRAME
            session.audio += bytes(FRAME)  # It looks as if it had received something.
            return LOST
        return None

    service = Service(script)
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert service.last.previous is service.sessions[1]


async def test_a_session_that_began_without_our_knowing_and_has_no_name_gives_way() -> None:
    """Over WebSocket an error has no metadata."""
    taken = Failure(grpc.StatusCode.ABORTED, "SESSION_RESUMED")
    service = Service(breaking(("audio", 50, LOST), ("begun", 2, LOST), ("config", 3, taken), ("config", 4, taken)))
    check_whole(await transcribe(service, store_audio=True), service)


async def test_a_session_that_another_client_has_taken_over_is_left_to_it() -> None:
    taken = Failure(grpc.StatusCode.ABORTED, "SESSION_RESUMED", resumed_by="sess_" + "9" * 32)
    with pytest.raises(SessionResumed) as error:
        await transcribe(Service(breaking(("audio", 50, LOST), ("config", 2, taken))))
    assert error.value.resumed_by == "sess_" + "9" * 32


async def test_a_session_that_is_gone_is_replaced_and_the_timeline_goes_on() -> None:
    gone = Failure(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    service = Service(breaking(("audio", 50, LOST), ("config", 2, gone)))
    events = await transcribe(service)
    check_whole(events, service, stores_audio=False)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert (warned.code, warned.details["session_id"]) == ("session_replaced", service.sessions[0].id)
    assert not service.configs[2].resume_session_id


async def test_a_transcription_does_not_look_ended_when_its_client_is_closed() -> None:
    async with serving(Service()) as url, AsyncClient(url) as client:
        events = aiter(client.transcribe(pieces(), pace=1))
        assert isinstance(await anext(events), SessionBegan)
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            async for _ in events:
                pass


@pytest.mark.parametrize("piece", ["text", 1])
async def test_audio_that_is_not_bytes_is_refused_by_its_type(piece: object) -> None:
    with pytest.raises(TypeError, match=f"pieces of bytes, not of {type(piece).__name__}"):
        await transcribe(Service(), audio=[piece])


async def test_audio_of_no_bytes_is_told_from_audio_of_another_kind() -> None:
    with pytest.raises(InvalidRequest, match="is empty"):
        await transcribe(Service(), audio=io.BytesIO())
    with pytest.raises(InvalidRequest, match="no kind of audio that is known"):
        await transcribe(Service(), audio=b"ID3")


def test_an_option_of_a_wrong_type_is_named() -> None:
    with Client() as client, pytest.raises(TypeError, match="language cannot be of type int"):
        client.transcribe(b"", language=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0.9, 20.0, 31.7, 40.0])
async def test_a_server_that_stops_is_left_at_once_and_no_word_is_cut(at: float) -> None:
    service = Service()
    service.terminates_at = round(at * RATE) * FRAME
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert service.sessions[0].is_completed
    assert [event.delay for event in events if isinstance(event, Reconnecting)] == [0.0]


async def test_a_transcription_may_be_longer_than_a_session() -> None:
    service = Service(max_session_seconds=20.0)
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) >= 4
    assert all(len(session.audio) <= 20 * RATE * FRAME for session in service.sessions)


@pytest.mark.parametrize(("reason", "error"), [("UNAUTHENTICATED", AuthenticationError), ("INTERNAL", ServerError)])
async def test_what_trying_again_does_not_help_is_raised(reason: str, error: type[Exception]) -> None:
    code = grpc.StatusCode.UNAUTHENTICATED if reason == "UNAUTHENTICATED" else grpc.StatusCode.INTERNAL
    with pytest.raises(error):
        await transcribe(Service(breaking(("audio", 50, Failure(code, reason)))))


async def test_a_full_service_refuses_at_first_and_is_waited_for_later() -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    with pytest.raises(NoCapacity):
        await transcribe(Service(breaking(("config", 1, full))))
    service = Service(breaking(("config", 1, full)))
    check_whole(await transcribe(service, wait=5), service, stores_audio=False)
    service = Service(breaking(("audio", 50, LOST), ("config", 2, full)))
    check_whole(await transcribe(service), service, stores_audio=False)


async def test_without_progress_it_is_given_up_and_what_was_said_is_not_lost() -> None:
    def script(service: Service, _session: Recorded | None, moment: str) -> Failure | None:
        return LOST if len(service.configs) > 1 or (moment == "audio" and len(service.last.audio) > 400_000) else None

    service = Service(script)
    async with serving(service) as url, AsyncClient(url) as client:
        stream = client.transcribe(pieces(), give_up_after=0.3)
        events: list[Event] = []
        with pytest.raises(ConnectionLost) as error:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what came before the error counts
    finals = tuple(event for event in events if isinstance(event, FinalResult))
    assert error.value.finals == finals
    assert [final.text for final in finals] == SAID[: len(finals)]
    assert finals
    assert error.value.session_id == service.sessions[0].id
    assert stream.transcript.text == " ".join(final.text for final in finals)


async def test_a_flush_and_a_language_are_not_lost_with_the_connection() -> None:
    service = Service(breaking(("audio", 60, LOST)))
    asked = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        for number, piece in enumerate(pieces()):
            yield piece
            if number == 55 and not asked:
                asked = True
                stream.set_language("de")
                stream.flush()

    async with serving(service) as url, AsyncClient(url) as client:
        stream = client.transcribe(source(), language="en", store_audio=True)
        events = [event async for event in stream]
    assert len([event for event in events if isinstance(event, Flushed)]) == 1
    assert len(service.sessions) == 2
    place = 56 * 8000
    for session, base in ((service.sessions[0], 0), (service.sessions[1], service.sessions[1].resume_from)):
        languages = {base + position: language for position, language in session.languages}
        assert languages == {place: "de"} or (session.config.language == "de" and base >= place) or not languages
    assert service.last.joined() == AUDIO


async def test_audio_that_the_service_is_done_with_is_let_go() -> None:
    long = speech([(1.0, 2.0)] * 100)
    service = Service()
    async with serving(service) as url, AsyncClient(url) as client:
        stream = client.transcribe(pieces(long), store_audio=True, max_kept_seconds=60)
        most = 0
        async for _ in stream:
            assert stream._send_queue is not None
            most = max(most, stream._send_queue.audio.size)
    assert most <= (60 + 5) * RATE * FRAME
    assert service.last.joined() == long


async def test_a_source_waits_while_nothing_is_acknowledged_as_stored() -> None:
    long = speech([(1.0, 2.0)] * 100)
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces(long):
            taken += len(piece)
            yield piece

    service = Service(stored_lag=1 << 40)
    async with serving(service) as url, AsyncClient(url) as client:
        async with client.transcribe(source(), store_audio=True, max_kept_seconds=60) as stream:
            async for event in stream:
                if isinstance(event, Acknowledged) and event.received > 59.5:
                    break
        assert taken <= 62 * RATE * FRAME


async def test_a_source_that_pauses_stays_with_its_session() -> None:
    """Longer than the idle timeout, while acknowledgements without news come in between."""
    times = 3
    service = Service(idle_timeout_seconds=0.6)

    async def halting() -> AsyncIterator[bytes]:
        parts = list(pieces())
        stops = {len(parts) * number // (times + 1) for number in range(1, times + 1)}
        for number, piece in enumerate(parts):
            if number in stops:
                await asyncio.sleep(1.0)
            yield piece

    events = await transcribe(service, halting(), store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) == 1
    assert not [event for event in events if isinstance(event, Reconnecting)]
    # Not more than one in a third of the timeout, however often the service says something.
    assert 3 * times <= service.keep_alives <= 8 * times


async def test_a_source_that_pauses_for_ever_can_be_left() -> None:
    service = Service(idle_timeout_seconds=0.3)

    async def silent() -> AsyncIterator[bytes]:
        yield AUDIO[:8000]
        await asyncio.Event().wait()

    async with serving(service) as url, AsyncClient(url) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await client.transcribe(silent()).wait()
    assert len(service.sessions) == 1
    assert service.keep_alives > 3
    assert not service.last.is_running


async def test_a_callers_generator_can_be_read_further_after_the_end() -> None:
    service = Service()
    source = pieces()
    async with serving(service) as url, AsyncClient(url) as client, client.transcribe(source, pace=50.0) as stream:
        async for event in stream:
            if isinstance(event, Acknowledged):
                stream.end()
    assert next(source)
