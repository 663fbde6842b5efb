"""Graceful shutdown as streams observe it."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest, TranscribeResponse
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

CONFIG = TranscribeRequest(config=TranscribeConfig())
FLUSH = TranscribeRequest(control=TranscribeControl(flush=TranscribeControl.Flush()))
END = TranscribeRequest(control=TranscribeControl(end=TranscribeControl.End()))


async def begin(draining: Any, **config: Any) -> tuple[Any, str]:
    call = draining.stub.Transcribe()
    await call.write(TranscribeRequest(config=TranscribeConfig(**config)))
    return call, (await call.read()).session_begin.session_id


async def send(call: Any, audio: bytes) -> None:
    for start in range(0, len(audio), 3200):
        await call.write(TranscribeRequest(audio=audio[start : start + 3200]))


async def read_to_end(call: Any) -> tuple[list[TranscribeResponse], grpc.StatusCode, str]:
    """All responses, the status, and its reason."""
    responses: list[TranscribeResponse] = []
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            responses.append(response)
    except grpc.aio.AioRpcError as error:
        info = ErrorInfo()
        status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        assert status.details[0].Unpack(info)
        return responses, error.code(), info.reason
    return responses, grpc.StatusCode.OK, ""


def kinds(responses: list[TranscribeResponse]) -> list[str | None]:
    return [response.WhichOneof("response") for response in responses]


async def test_a_stream_that_ends_within_the_grace_period_ends_normally(draining: Any, speech: bytes) -> None:
    call, session_id = await begin(draining)
    await send(call, speech)
    draining.drain.begin(20)
    responses = [await call.read(), await call.read()]
    terminating = next(r for r in responses if r.HasField("session_terminating")).session_terminating
    assert terminating.reason == "shutdown"
    assert 19 < terminating.grace_seconds <= 20
    assert terminating.resume_session_id == session_id
    await call.write(END)
    await call.done_writing()
    responses, code, _ = await read_to_end(call)
    assert code is grpc.StatusCode.OK
    assert kinds(responses)[-2:] == ["final", "session_end"]
    assert await draining.drain.wait_empty(1)


async def test_the_last_finals_follow_the_grace_period(draining: Any, speech: bytes) -> None:
    call, _ = await begin(draining, enable_vad=False, acks=True)
    await send(call, speech)
    await asyncio.sleep(0.3)
    draining.drain.begin(0.2)
    responses, code, reason = await read_to_end(call)
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_SHUTDOWN")
    assert kinds(responses) == ["session_terminating", "final", "audio_ack"]
    assert responses[1].final.end == pytest.approx(3.0)
    assert (responses[2].audio_ack.received_seconds, responses[2].audio_ack.processed_seconds) == (3.0, 3.0)


async def test_a_stream_without_pauses_ends_after_the_grace_period(draining: Any) -> None:
    call, _ = await begin(draining)

    async def send_forever() -> None:
        while True:
            await call.write(TranscribeRequest(audio=bytes(3200)))

    sending = asyncio.create_task(send_forever())
    draining.drain.begin(0.3)
    began = time.monotonic()
    assert await draining.drain.wait_empty(5)
    assert 0.2 < time.monotonic() - began < 4
    sending.cancel()
    await asyncio.wait({sending})


async def test_new_streams_are_refused_with_unavailable(draining: Any) -> None:
    old, _ = await begin(draining)
    draining.drain.begin(20)
    call = draining.stub.Transcribe()
    await call.write(CONFIG)
    responses, code, reason = await read_to_end(call)
    assert (responses, code, reason) == ([], grpc.StatusCode.UNAVAILABLE, "SERVER_SHUTDOWN")
    assert draining.drain.streams == 1
    old.cancel()
    assert await draining.drain.wait_empty(5)


async def test_the_wait_for_streams_has_a_limit(draining: Any, speech: bytes) -> None:
    draining.engine.may_answer.clear()
    call, _ = await begin(draining)
    await send(call, speech)
    await call.write(FLUSH)
    await draining.engine.was_asked.wait()
    draining.drain.begin(0)
    assert not await draining.drain.wait_empty(0.5)
    draining.engine.may_answer.set()
    assert await draining.drain.wait_empty(5)
    _, code, _ = await read_to_end(call)
    assert code is grpc.StatusCode.UNAVAILABLE
