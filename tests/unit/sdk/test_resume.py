"""The SDK resumes a transcription after failures of a fake service."""

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
TEXTS = [f"{n}:{round(length * RATE)}" for n, (_, length) in enumerate(UTTERANCES)]


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
    """Asserts that nothing is missing, duplicated or shifted."""
    finals = [event for event in events if isinstance(event, FinalResult)]
    assert [final.text for final in finals] == TEXTS
    time = 0.0
    for final, (silence, length) in zip(finals, UTTERANCES, strict=True):
        assert final.start == pytest.approx(time + silence, abs=1e-4)
        assert final.end == pytest.approx(time + silence + length, abs=1e-4)
        time += silence + length
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert ended.text == " ".join(TEXTS)
    assert ended.duration == pytest.approx(len(AUDIO) / FRAME / RATE)
    if stores_audio:
        assert service.last.joined() == AUDIO


def breaking(*moments: tuple[str, int, Failure]) -> Any:
    """A script that fails at the n-th occurrence of a moment, counted over all sessions."""
    counts: dict[str, int] = {}

    def script(_service: Service, _session: Recorded | None, moment: str) -> Failure | None:
        counts[moment] = counts.get(moment, 0) + 1
        return next((f for name, count, f in moments if name == moment and count == counts[moment]), None)

    return script


async def test_transcription_without_faults_takes_one_session() -> None:
    service = Service()
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) == 1
    assert isinstance(events[0], SessionBegan)
    assert not [event for event in events if isinstance(event, Reconnecting | Resumed | Warned)]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED"])
@pytest.mark.parametrize("stores_audio", [True, False])
async def test_status_without_reason_resumes_the_session(code: str, stores_audio: bool) -> None:
    service = Service(breaking(("audio", 100, Failure(grpc.StatusCode[code]))), stored_lag=RATE)
    events = await transcribe(service, store_audio=stores_audio)
    check_whole(events, service, stores_audio=stores_audio)
    (resumed,) = [event for event in events if isinstance(event, Resumed)]
    assert (resumed.previous_session_id, resumed.session_id) == (service.sessions[0].id, service.sessions[1].id)
    assert resumed.position == service.sessions[1].resume_from / FRAME / RATE > 0
    assert events[-1].session_ids == (service.sessions[0].id, service.sessions[1].id)


@pytest.mark.parametrize("seed", range(8))
async def test_repeated_cuts_neither_lose_nor_duplicate_results(seed: int) -> None:
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


async def test_resume_is_retried_while_the_earlier_session_is_active() -> None:
    active = Failure(grpc.StatusCode.ABORTED, "SESSION_ACTIVE")
    service = Service(breaking(("audio", 50, LOST), ("config", 2, active), ("config", 3, active)))
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert [event.attempt for event in events if isinstance(event, Reconnecting)] == [1, 2, 3]


async def test_session_whose_begin_was_lost_is_replaced() -> None:
    service = Service(breaking(("audio", 50, LOST), ("begun", 2, LOST)))
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) == 3


async def test_unconfirmed_session_is_continued() -> None:
    audio_messages = 0

    def script(service: Service, session: Recorded | None, moment: str) -> Failure | None:
        nonlocal audio_messages
        audio_messages += moment == "audio"
        if audio_messages == 50 and moment == "audio":
            return LOST
        if moment == "begun" and session is not None and len(service.sessions) == 2:
            session.stored = FRAME
            session.audio += bytes(FRAME)  # The session appears to have received audio.
            return LOST
        return None

    service = Service(script)
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert service.last.previous is service.sessions[1]


async def test_unconfirmed_session_without_id_is_waited_for() -> None:
    """Over WebSocket an error has no metadata."""
    taken = Failure(grpc.StatusCode.ABORTED, "SESSION_RESUMED")
    service = Service(breaking(("audio", 50, LOST), ("begun", 2, LOST), ("config", 3, taken), ("config", 4, taken)))
    check_whole(await transcribe(service, store_audio=True), service)


async def test_session_resumed_by_another_client_raises_session_resumed() -> None:
    taken = Failure(grpc.StatusCode.ABORTED, "SESSION_RESUMED", resumed_by="sess_" + "9" * 32)
    with pytest.raises(SessionResumed) as error:
        await transcribe(Service(breaking(("audio", 50, LOST), ("config", 2, taken))))
    assert error.value.resumed_by == "sess_" + "9" * 32


async def test_missing_session_is_replaced_on_the_same_timeline() -> None:
    gone = Failure(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    service = Service(breaking(("audio", 50, LOST), ("config", 2, gone)))
    events = await transcribe(service)
    check_whole(events, service, stores_audio=False)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert (warned.code, warned.details["session_id"]) == ("session_replaced", service.sessions[0].id)
    assert not service.configs[2].resume_session_id


async def test_closing_the_client_raises_in_its_transcriptions() -> None:
    async with serving(Service()) as url, AsyncClient(url) as client:
        events = aiter(client.transcribe(pieces(), pace=1))
        assert isinstance(await anext(events), SessionBegan)
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            async for _ in events:
                pass


@pytest.mark.parametrize("piece", ["text", 1])
async def test_audio_of_a_wrong_type_is_rejected(piece: object) -> None:
    with pytest.raises(TypeError, match=f"must yield bytes, not {type(piece).__name__}"):
        await transcribe(Service(), audio=[piece])


async def test_empty_audio_and_unsupported_audio_have_different_errors() -> None:
    with pytest.raises(InvalidRequest, match="is empty"):
        await transcribe(Service(), audio=io.BytesIO())
    with pytest.raises(InvalidRequest, match="not in a supported audio format"):
        await transcribe(Service(), audio=b"ID3")


def test_error_for_a_wrong_option_type_names_the_option() -> None:
    with Client() as client, pytest.raises(TypeError, match="language cannot be of type int"):
        client.transcribe(b"", language=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0.9, 20.0, 31.7, 40.0])
async def test_session_moves_from_a_stopping_server_without_cutting_words(at: float) -> None:
    service = Service()
    service.terminates_at = round(at * RATE) * FRAME
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert service.sessions[0].is_completed
    assert [event.delay for event in events if isinstance(event, Reconnecting)] == [0.0]


async def test_transcription_may_exceed_the_length_of_a_session() -> None:
    service = Service(max_session_seconds=20.0)
    events = await transcribe(service, store_audio=True)
    check_whole(events, service)
    assert len(service.sessions) >= 4
    assert all(len(session.audio) <= 20 * RATE * FRAME for session in service.sessions)


@pytest.mark.parametrize(("reason", "error"), [("UNAUTHENTICATED", AuthenticationError), ("INTERNAL", ServerError)])
async def test_error_that_a_retry_cannot_resolve_is_raised(reason: str, error: type[Exception]) -> None:
    code = grpc.StatusCode.UNAUTHENTICATED if reason == "UNAUTHENTICATED" else grpc.StatusCode.INTERNAL
    with pytest.raises(error):
        await transcribe(Service(breaking(("audio", 50, Failure(code, reason)))))


async def test_service_at_capacity_raises_at_first_and_is_retried_later() -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    with pytest.raises(NoCapacity):
        await transcribe(Service(breaking(("config", 1, full))))
    service = Service(breaking(("config", 1, full)))
    check_whole(await transcribe(service, wait=5), service, stores_audio=False)
    service = Service(breaking(("audio", 50, LOST), ("config", 2, full)))
    check_whole(await transcribe(service), service, stores_audio=False)


async def test_connection_lost_without_progress_keeps_the_finals() -> None:
    def script(service: Service, _session: Recorded | None, moment: str) -> Failure | None:
        return LOST if len(service.configs) > 1 or (moment == "audio" and len(service.last.audio) > 400_000) else None

    service = Service(script)
    async with serving(service) as url, AsyncClient(url) as client:
        stream = client.transcribe(pieces(), give_up_after=0.3)
        events: list[Event] = []
        with pytest.raises(ConnectionLost) as error:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - the events before the error are needed
    finals = tuple(event for event in events if isinstance(event, FinalResult))
    assert error.value.finals == finals
    assert [final.text for final in finals] == TEXTS[: len(finals)]
    assert finals
    assert error.value.session_id == service.sessions[0].id
    assert stream.transcript.text == " ".join(final.text for final in finals)


async def test_flush_and_language_survive_a_lost_connection() -> None:
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


async def test_audio_that_the_service_has_stored_is_discarded() -> None:
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


async def test_source_waits_while_nothing_is_acknowledged_as_stored() -> None:
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


async def test_paused_source_keeps_its_session() -> None:
    """The pause exceeds the idle timeout, while acknowledgements without progress arrive."""
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
    # At most one keep-alive in a third of the timeout, however often the service acknowledges.
    assert 3 * times <= service.keep_alives <= 8 * times


async def test_transcription_of_a_paused_source_can_be_cancelled() -> None:
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
    async with asyncio.timeout(20):  # The server learns of the cancellation a moment later.
        while service.last.is_running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_caller_can_read_its_generator_after_the_end() -> None:
    service = Service()
    source = pieces()
    async with serving(service) as url, AsyncClient(url) as client, client.transcribe(source, pace=50.0) as stream:
        async for event in stream:
            if isinstance(event, Acknowledged):
                stream.end()
    assert next(source)
