"""Admission depends on the queue delay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub, add_TranscriptionServiceServicer_to_server

from persistence.recovery.resumption import Resumption
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ELSEWHERE, ErrorInterceptor
from server.rpc.requests import StreamLimits
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from tests.integration.rpc.conftest import GatedEngine

CONFIG = TranscribeRequest(config=TranscribeConfig())
LAG_SECONDS = 0.3


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


class Resumptions:
    """Ends the earlier session, and returns a resume point."""

    def __init__(self) -> None:
        self.running: Any = None

    async def point(self, wanted: Resumption) -> float:
        self.running.cancel()
        await asyncio.sleep(0.2)
        return 1.0


@pytest.fixture
def resumptions() -> Resumptions:
    return Resumptions()


@pytest.fixture
async def stub(engine: GatedEngine, resumptions: Any) -> AsyncIterator[Any]:
    server = grpc.aio.server(interceptors=(ErrorInterceptor(), AuthInterceptor()))
    limits = StreamLimits(60, 30)
    servicer = TranscriptionServicer(
        engine, SileroVad(), limits, max_sessions=2, max_queue_delay_seconds=LAG_SECONDS, resumptions=resumptions
    )
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TranscriptionServiceStub(channel)
    await server.stop(0)


async def test_sessions_are_refused_until_running_ones_have_caught_up(stub: Any, engine: GatedEngine) -> None:
    running = stub.Transcribe()
    await running.write(CONFIG)
    assert (await running.read()).HasField("session_begin")
    engine.queue_delay = 2 * LAG_SECONDS
    refused = stub.Transcribe()
    await refused.write(CONFIG)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await refused.read()
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "behind" in (raised.value.details() or "")
    assert dict(raised.value.trailing_metadata())[ELSEWHERE] == "1", "Envoy retries at another server"
    engine.queue_delay = LAG_SECONDS / 3
    another = stub.Transcribe()
    await another.write(CONFIG)
    assert (await another.read()).HasField("session_begin")
    for call in (running, another):
        call.cancel()


async def test_a_full_server_admits_a_client_that_resumes_its_session(
    stub: Any, engine: GatedEngine, resumptions: Resumptions
) -> None:
    calls = [stub.Transcribe() for _ in range(2)]
    for call in calls:
        await call.write(CONFIG)
        begin = (await call.read()).session_begin
    resumptions.running, engine.queue_delay = calls[1], 2 * LAG_SECONDS
    resuming = stub.Transcribe()
    await resuming.write(TranscribeRequest(config=TranscribeConfig(resume_session_id=begin.session_id)))
    begun = (await resuming.read()).session_begin
    assert begun.resumed_from == begin.session_id
    assert begun.resume_from_seconds == 1.0
    for call in (calls[0], resuming):
        call.cancel()
