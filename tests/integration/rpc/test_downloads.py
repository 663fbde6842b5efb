"""Downloads whose clients stall, are slow, or disconnect."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from dalston.v1.session_pb2 import GetAudioRequest
from dalston.v1.session_pb2_grpc import SessionServiceStub, add_SessionServiceServicer_to_server
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from prometheus_client import REGISTRY

from domain.credentials import Authorization
from domain.session_id import new_session_id
from domain.tenancy import Caller
from persistence.s3.byte_map import ByteMap, Fill
from server.rpc import downloads
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.sessions import SessionServicer
from server.rpc.telemetry import TelemetryInterceptor
from server.session.errors import IdleTimeout

SIZE = 8 << 20
MOST = 3
SESSION_ID = new_session_id()


class Archive:
    """An archive in which every recording is long silence."""

    async def audio_file(self, _chain: Any) -> ByteMap:
        return ByteMap((Fill(b"\0", SIZE),))

    async def read(self, file: ByteMap) -> AsyncIterator[bytes]:
        for piece in file.pieces:
            assert isinstance(piece, Fill)
            for chunk in piece.chunks():
                yield chunk


class Chains:
    async def read(self, *_: Any, **__: Any) -> tuple[Any]:
        return (SimpleNamespace(media_type=None),)


@dataclass
class Stored:
    archive: Archive = field(default_factory=Archive)
    chains: Chains = field(default_factory=Chains)
    transcripts: Any = None
    partials: Any = None


class ByName:
    """Admits callers as the tenant that they name."""

    async def admit(self, _method: str, authorization: Authorization, _address: str | None) -> Caller:
        return Caller(UUID(authorization.values[0]))


class Reader:
    """A client of one tenant."""

    def __init__(self, stub: SessionServiceStub) -> None:
        self._stub = stub
        self.tenant_id = str(uuid4())

    def ask(self) -> Any:
        return self._stub.GetAudio(
            GetAudioRequest(session_id=SESSION_ID), metadata=(("authorization", self.tenant_id),)
        )

    async def headers(self, *metadata: tuple[str, str]) -> tuple[dict[str, Any], int]:
        """The initial metadata of a download with these headers, and the number of its bytes."""
        call = self._stub.GetAudio(
            GetAudioRequest(session_id=SESSION_ID), metadata=(("authorization", self.tenant_id), *metadata)
        )
        size = sum([len(part.data) async for part in call])
        return dict(await call.initial_metadata()), size

    async def begin(self) -> Any:
        """A download that has begun and stalls."""
        call = self.ask()
        await call.read()
        return call

    async def size_of_all(self) -> int:
        return sum([len(part.data) async for part in self.ask()])


@pytest.fixture
async def stub() -> AsyncIterator[SessionServiceStub]:
    server = grpc.aio.server(interceptors=(TelemetryInterceptor(), ErrorInterceptor(), AuthInterceptor(ByName())))
    add_SessionServiceServicer_to_server(SessionServicer(Stored(), None, None, None, MOST), server)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    # Without probing the flow-control window stays small, so that backpressure begins early.
    options = (("grpc.http2.bdp_probe", 0),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield SessionServiceStub(channel)
    await server.stop(0)


def calls_ended(code: str) -> float:
    return REGISTRY.get_sample_value("dalston_rpc_calls_total", {"method": "GetAudio", "code": code}) or 0.0


async def test_stalled_downloads_of_a_tenant_block_no_other_tenant(
    stub: SessionServiceStub,
) -> None:
    stuck, other = Reader(stub), Reader(stub)
    waiting = [await stuck.begin() for _ in range(MOST)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stuck.size_of_all()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(refused.value.trailing_metadata() or ())
    assert trailing["retry-after"] == "5"
    info = ErrorInfo()
    Status.FromString(trailing["grpc-status-details-bin"]).details[0].Unpack(info)  # type: ignore[arg-type]
    assert info.reason == "RATE_LIMITED"
    assert await other.size_of_all() == SIZE
    waiting.pop().cancel()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await stuck.size_of_all() == SIZE
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
    for call in waiting:
        call.cancel()


async def test_a_download_read_too_slowly_ends_and_frees_its_place(
    stub: SessionServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_WRITE_SECONDS", 0.5)
    reader = Reader(stub)
    waiting = [await reader.begin() for _ in range(MOST)]
    await asyncio.sleep(1.5)
    assert await reader.size_of_all() == SIZE
    for call in waiting:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_disconnect_during_backpressure_is_not_an_internal_error(
    stub: SessionServiceStub, capfd: pytest.CaptureFixture[str]
) -> None:
    before = calls_ended("CANCELLED"), calls_ended("INTERNAL")
    readers = [await Reader(stub).begin() for _ in range(10)]
    await asyncio.sleep(0.2)
    for call in readers:
        call.cancel()
    async with asyncio.timeout(10):
        while calls_ended("CANCELLED") < before[0] + len(readers):  # noqa: ASYNC110 - a metric
            await asyncio.sleep(0.02)
    assert calls_ended("INTERNAL") == before[1]
    assert "rror" not in "".join(capfd.readouterr())


class SlowTransport:
    """Accepts a chunk every 50 ms."""

    async def write(self, _message: Any) -> None:
        await asyncio.sleep(0.05)


async def test_a_trickling_download_is_ended_and_a_player_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_WRITE_SECONDS", 0.3)
    chunk = bytes(16_000)
    file = downloads._File("audio/wav", None, 1 << 30, "")
    player, trickle = (downloads._DownloadClient(SlowTransport(), file) for _ in range(2))  # type: ignore[arg-type]
    for _ in range(20):
        await player.send(chunk)
    with pytest.raises(IdleTimeout):
        for _ in range(20):
            await trickle.send(chunk[:100])


PART = ("range", "bytes=0-99")


async def test_a_file_with_the_same_tag_is_not_sent_again(stub: SessionServiceStub) -> None:
    reader = Reader(stub)
    whole, size = await reader.headers()
    assert size == SIZE
    part, size = await reader.headers(PART)
    assert (part["etag"], size) == (whole["etag"], 100)
    known, size = await reader.headers(("if-none-match", whole["etag"]), PART)
    assert size == 0
    assert known["etag"] == whole["etag"]
    assert known["x-not-modified"]
    assert "content-range" not in known


async def test_a_range_of_another_file_is_answered_with_the_whole_file(stub: SessionServiceStub) -> None:
    reader = Reader(stub)
    tag = (await reader.headers(PART))[0]["etag"]
    assert (await reader.headers(PART, ("if-range", tag)))[1] == 100
    for other in ('"another"', f"W/{tag}", "Mon, 30 Nov 2026 12:00:00 GMT"):
        headers, size = await reader.headers(PART, ("if-range", other))
        assert size == SIZE
        assert "content-range" not in headers
