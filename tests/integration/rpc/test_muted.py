"""A client that stops sending audio inside of a sentence: wall time ends its speech, the idle timeout its session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from dalston.v1 import transcription_pb2 as pb
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub, add_TranscriptionServiceServicer_to_server

from server.inference.recognition import Recognition
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.requests import StreamLimits
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from tests.integration.rpc.conftest import GatedEngine
from tests.recognizers import Asked

FLUSH = pb.TranscribeRequest(control=pb.TranscribeControl(flush=pb.TranscribeControl.Flush()))


class SuppressingEngine(GatedEngine):
    async def answer(self, asked: Asked) -> Recognition:
        await super().answer(asked)
        return Recognition("", "en", 0.0, 0.9, "no_speech")


@pytest.fixture(params=[GatedEngine, SuppressingEngine])
async def muted(request: pytest.FixtureRequest, speech: bytes) -> AsyncIterator[Any]:
    """A call whose client has sent half a sentence."""
    server = grpc.aio.server(interceptors=(ErrorInterceptor(), AuthInterceptor()))
    servicer = TranscriptionServicer(request.param(), SileroVad(), StreamLimits(60, 4), max_sessions=2)
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = TranscriptionServiceStub(channel).Transcribe()
        await call.write(pb.TranscribeRequest(config=pb.TranscribeConfig(interim_results=False)))
        assert (await call.read()).HasField("session_begin")
        for start in range(0, len(speech), 3200):
            await call.write(pb.TranscribeRequest(audio=speech[start : start + 3200]))
        call.outcome = "final" if request.param is GatedEngine else "warning"
        yield call
        call.cancel()
    await server.stop(0)


async def test_wall_time_ends_speech_before_the_idle_timeout(muted: Any) -> None:
    kinds = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        while True:
            kinds.append((await muted.read()).WhichOneof("response"))
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert kinds == ["speech_start", "speech_end", muted.outcome]


async def test_a_flush_after_the_end_of_speech_is_answered(muted: Any) -> None:
    async with asyncio.timeout(20):
        kinds = [(await muted.read()).WhichOneof("response") for _ in range(3)]
        await muted.write(FLUSH)
        flushed = await muted.read()
    assert kinds == ["speech_start", "speech_end", muted.outcome]
    assert flushed.flushed.timestamp == 3.0
