"""Limits of streams that send no config."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub, add_TranscriptionServiceServicer_to_server
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from domain.credentials import Authorization
from domain.tenancy import Caller, TenantLimits
from server.rpc import requests
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.requests import StreamLimits
from server.rpc.transcription import TranscriptionServicer
from server.vad.silero import SileroVad
from tests.integration.rpc.conftest import GatedEngine

CONFIG = TranscribeRequest(config=TranscribeConfig())
TENANTS = {name: uuid.uuid4() for name in ("greedy", "modest")}


class NamingGate:
    """Admits callers as the tenant that they name; after a slash they name a token."""

    async def admit(self, method: str, authorization: Authorization, address: str | None) -> Caller:
        name, _, token = authorization.values[0].partition("/")
        return Caller(TENANTS[name], TenantLimits(max_sessions=3), token_hash=token.encode() or None)


@pytest.fixture
async def stub() -> AsyncIterator[TranscriptionServiceStub]:
    server = grpc.aio.server(interceptors=(ErrorInterceptor(), AuthInterceptor(NamingGate())))
    servicer = TranscriptionServicer(GatedEngine(), SileroVad(), StreamLimits(60, 30), max_sessions=2)
    add_TranscriptionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TranscriptionServiceStub(channel)
    await server.stop(0)


def open_stream(stub: Any, name: str) -> Any:
    return stub.Transcribe(metadata=(("authorization", name),))


async def reason_of(call: Any) -> str:
    async with asyncio.timeout(5):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    info = ErrorInfo()
    assert Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"]).details[0].Unpack(info)
    return info.reason


async def test_streams_without_config_occupy_no_place_of_other_tenants(stub: Any) -> None:
    silent = [open_stream(stub, "greedy") for _ in range(3)]
    await asyncio.sleep(0.3)
    outcomes = [reason_of(open_stream(stub, "greedy")) for _ in range(20)]
    assert set(await asyncio.gather(*outcomes)) == {"TOO_MANY_SESSIONS"}
    other = open_stream(stub, "modest")
    await other.write(CONFIG)
    assert (await other.read()).HasField("session_begin")
    for call in silent:
        call.cancel()


async def test_one_stream_at_a_time_may_wait_with_a_token(stub: Any) -> None:
    first = open_stream(stub, "greedy/token")
    await asyncio.sleep(0.3)
    assert await reason_of(open_stream(stub, "greedy/token")) == "TOO_MANY_SESSIONS"
    first.cancel()
    await asyncio.sleep(0.2)
    again = open_stream(stub, "greedy/token")
    await again.write(CONFIG)
    assert (await again.read()).HasField("session_begin")


async def test_the_timeout_for_the_config_is_shorter_than_for_audio(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_CONFIG_SECONDS", 0.2)
    assert await reason_of(open_stream(stub, "modest")) == "IDLE_TIMEOUT"
    call = open_stream(stub, "modest")
    await call.write(CONFIG)
    assert (await call.read()).HasField("session_begin")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.read(), 0.6)
