"""Live transcription through the SDK and Envoy."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from dalston import (
    Acknowledged,
    AsyncClient,
    Client,
    Ended,
    Event,
    FinalResult,
    Flushed,
    InvalidRequest,
    PartialResult,
    SessionBegan,
    SpeechEnded,
    SpeechStarted,
    Unavailable,
)
from dalston.options import Transport

from stack.ports import free_port
from tests.integration.sdk.conftest import RATE, Speech, frames_of, wav_of
from tests.words import word_error_rate

TRANSPORTS: tuple[Transport, ...] = ("grpc", "websocket")


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_file_is_transcribed_completely_by_both_transports(
    client: Client, speech: Speech, transport: Transport
) -> None:
    options = {"store_audio": True, "store_transcript": True, "language": "en", "transport": transport}
    with client.transcribe(speech.wav, **options) as stream:
        events = list(stream)
        transcript = stream.transcript
    begun, ended = events[0], events[-1]
    assert isinstance(begun, SessionBegan)
    assert (begun.language, begun.encoding, begun.sample_rate, begun.channels) == ("en", "pcm_s16le", RATE, 1)
    assert isinstance(ended, Ended)
    assert ended.session_ids == stream.session_ids == (begun.session_id,)
    assert ended.duration == pytest.approx(speech.seconds)
    assert word_error_rate(speech.text, ended.text) <= 0.1
    finals = of(FinalResult, events)
    assert transcript.text == ended.text
    assert [(u.start, u.end, u.text) for u in transcript.utterances] == [(f.start, f.end, f.text) for f in finals]
    assert [s.timestamp for s in of(SpeechStarted, events)] == [final.start for final in finals]
    assert [s.timestamp for s in of(SpeechEnded, events)] == [final.end for final in finals]
    last = of(Acknowledged, events)[-1]
    assert last.received == pytest.approx(speech.seconds)
    assert finals[-1].start <= last.processed <= last.received

    deadline = time.monotonic() + 20
    while not (record := client.sessions.get(begun.session_id)).transcript_uri:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert record.status == "completed"
    assert frames_of(client.sessions.audio(begun.session_id).read()) == speech.pcm
    assert client.sessions.transcript(begun.session_id).text == ended.text


async def test_pieces_of_any_size_are_audio(async_client: AsyncClient, speech: Speech) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, 10 * RATE, 3333):
            yield speech.pcm[start : min(start + 3333, 10 * RATE)]

    async with async_client.transcribe(pieces(), language="en") as stream:
        events = [event async for event in stream]
    assert events[-1].duration == 5.0
    assert of(FinalResult, events)


def test_iterator_may_end_within_a_sample(client: Client, speech: Speech) -> None:
    events = list(client.transcribe(iter([speech.pcm[:16_001]])))
    assert [event.code for event in events if hasattr(event, "code")] == ["partial_sample"]
    assert events[-1].duration == 0.5


def test_flush_is_answered_in_order_and_end_stops_reading(client: Client, speech: Speech) -> None:
    taken = 0

    def microphone() -> Iterator[bytes]:
        nonlocal taken
        for start in range(0, len(speech.pcm), 3200):
            taken += 1
            yield speech.pcm[start : start + 3200]
            time.sleep(0.02)

    with client.transcribe(microphone(), language="en") as stream:
        events: list[Event] = []
        for event in stream:
            # An utterance that has hardly begun may not be speech and have no final.
            if isinstance(event, PartialResult) and not of(PartialResult, events):
                stream.flush()
            if isinstance(event, Flushed):
                stream.end()
            events.append(event)
    (flushed,) = of(Flushed, events)
    before = [event for event in events[: events.index(flushed)] if isinstance(event, FinalResult)]
    assert before
    assert before[-1].end <= flushed.timestamp + 0.1
    assert isinstance(events[-1], Ended)
    assert events[-1].duration < speech.seconds
    assert taken * 3200 < len(speech.pcm)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rejected_parameter_error_states_the_reason(client: Client, speech: Speech, transport: Transport) -> None:
    with pytest.raises(InvalidRequest, match="no model") as refused:
        list(client.transcribe(speech.wav, model="none-such", transport=transport))
    assert refused.value.reason == "INVALID_MODEL"
    with pytest.raises(InvalidRequest, match="language"):
        list(client.transcribe(speech.wav, language="klingon", transport=transport))
    with pytest.raises(InvalidRequest, match="vad_threshold"):
        list(client.transcribe(speech.wav, vad_threshold=7.0, transport=transport))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_unavailable_service_is_an_error_immediately(speech: Speech, transport: Transport) -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(Unavailable, match="cannot be reached"),
    ):
        list(client.transcribe(speech.wav, transport=transport))


def test_wait_retries_an_unavailable_service(speech: Speech) -> None:
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unavailable):
        list(client.transcribe(speech.wav, wait=1.0))
    assert 0.5 < time.monotonic() - began < 5


async def test_closed_stream_is_recorded_as_interrupted(async_client: AsyncClient, speech: Speech) -> None:
    async with async_client.transcribe(speech.wav, pace=1.0) as stream:
        async for event in stream:
            if isinstance(event, Acknowledged):
                break
    async with asyncio.timeout(20):
        while (record := await async_client.sessions.get(stream.session_ids[0])).status == "active":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert record.status == "interrupted"


async def test_pace_is_kept(async_client: AsyncClient, speech: Speech) -> None:
    began = time.monotonic()
    wav = wav_of(speech.pcm[: 4 * RATE])
    events = [event async for event in async_client.transcribe(wav, pace=2.0)]
    assert events[-1].duration == 2.0
    assert time.monotonic() - began >= 0.95


async def test_error_of_the_source_is_raised(async_client: AsyncClient, speech: Speech) -> None:
    def broken() -> Iterator[bytes]:
        yield speech.pcm[:3200]
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await async_client.transcribe(broken()).wait()
