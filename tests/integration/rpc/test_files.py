"""TranscribeFile over a real gRPC server: the order of its messages, and what is refused before anything is stored."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from dalston.v1 import file_pb2 as pb
from dalston.v1.file_pb2_grpc import FileServiceStub, add_FileServiceServicer_to_server
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from domain.job import JobRequest
from domain.session_id import new_uuid7
from server.access.gate import OpenGate
from server.rpc.auth import AuthInterceptor
from server.rpc.errors import ErrorInterceptor
from server.rpc.files import FileLimits, FileServicer
from server.rpc.requests import StreamLimits


def flac() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(1).normal(0, 0.1, 16_000), 16_000, format="FLAC")
    return file.getvalue()


FLAC = flac()
END = pb.TranscribeFileRequest(end=pb.FileEnd())


class Complete(Exception):
    """The file has been stored: what the job does is proved elsewhere."""


@dataclass
class Uploads:
    """Takes files, and keeps them."""

    files: list[bytes] = field(default_factory=list)
    completed: list[tuple[Any, ...]] = field(default_factory=list)
    begun: int = 0

    @asynccontextmanager
    async def begin(self, caller: Any, most_bytes: int, client_ip: str | None) -> AsyncIterator[Any]:
        self.begun += 1
        written = bytearray()

        async def write(data: bytes) -> None:
            written.extend(data)

        async def complete(*values: Any, **more: Any) -> Any:
            self.files.append(bytes(written))
            self.completed.append((*values, more))
            return new_uuid7()

        yield SimpleNamespace(write=write, complete=complete)


class Jobs:
    async def get(self, tenant_id: Any, job_id: Any) -> Any:
        raise Complete


class Watches:
    def place(self, tenant_id: Any) -> Any:
        raise Complete


class Catalog:
    models = frozenset({"fast", "accurate"})

    def supports(self, model: str, language: str) -> bool:
        return language in ("auto", "en")


@pytest.fixture
async def uploads() -> Uploads:
    return Uploads()


@pytest.fixture
async def stub(uploads: Uploads) -> AsyncIterator[FileServiceStub]:
    server = grpc.aio.server(interceptors=(ErrorInterceptor(), AuthInterceptor(OpenGate())))
    persistence = SimpleNamespace(uploads=uploads, jobs=Jobs())
    servicer = FileServicer(
        persistence,  # type: ignore[arg-type]
        Watches(),  # type: ignore[arg-type]
        Catalog(),
        StreamLimits(60.0, 1.0),
        FileLimits(max_bytes=1 << 30, max_uploads=2, max_queued_jobs=10),
    )
    add_FileServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield FileServiceStub(channel)
    await server.stop(None)


def config(**fields: Any) -> pb.TranscribeFileRequest:
    return pb.TranscribeFileRequest(config=pb.FileConfig(**fields))


def data(content: bytes) -> pb.TranscribeFileRequest:
    return pb.TranscribeFileRequest(data=content)


async def send(stub: FileServiceStub, *requests: pb.TranscribeFileRequest) -> grpc.aio.AioRpcError:
    async def messages() -> AsyncIterator[pb.TranscribeFileRequest]:
        for request in requests:
            yield request

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.TranscribeFile(messages()):
            pass
    return raised.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_configuration_comes_before_the_file_or_after_it(
    stub: FileServiceStub, uploads: Uploads, is_first: bool
) -> None:
    pieces = [data(FLAC[:10]), data(FLAC[10:15_000]), data(FLAC[15_000:])]
    about = config(model="fast", language="en", vocabulary=["Norland"], file_name="C:\\talks\\talk\n.flac", store=False)
    await send(stub, *([about, *pieces, END] if is_first else [*pieces, about]))
    assert uploads.files == [FLAC]
    media, name, request, more = uploads.completed[0]
    assert (media, name) == ("audio/flac", "talk.flac")
    assert request == JobRequest("fast", "en", ("Norland",))
    assert more == {"is_kept": False, "max_queued": 10}


@pytest.mark.parametrize(
    ("requests", "reason", "text"),
    [
        ([], "INVALID_MESSAGE", "without a file"),
        ([config()], "INVALID_MESSAGE", "without a file"),
        ([config(), END], "INVALID_MESSAGE", "the file is empty"),
        ([data(FLAC)], "INVALID_MESSAGE", "before its config or end"),
        ([config(), data(FLAC)], "INVALID_MESSAGE", "before its config or end"),
        ([data(FLAC), END], "INVALID_MESSAGE", "without config"),
        ([config(), config()], "INVALID_MESSAGE", "once"),
        ([data(FLAC[:20]), config(), data(FLAC[20:])], "INVALID_MESSAGE", "data was sent after"),
        ([config(), data(FLAC), END, END], "INVALID_MESSAGE", "end was sent after"),
        ([pb.TranscribeFileRequest()], "INVALID_MESSAGE", "neither"),
        ([config(), data(bytes(600_000))], "MESSAGE_TOO_BIG", "524288"),
        ([config(), data(b"#EXTM3U\nhttp://127.0.0.1/" + bytes(20_000))], "UNSUPPORTED_MEDIA", "flac"),
        ([config(model="huge"), data(FLAC)], "INVALID_MODEL", "accurate, fast"),
        ([data(FLAC), config(model="huge")], "INVALID_MODEL", "accurate, fast"),
        ([config(language="xx"), data(FLAC)], "INVALID_PARAMETERS", "language"),
        ([config(vocabulary=["a"] * 101), data(FLAC)], "INVALID_PARAMETERS", "vocabulary"),
    ],
)
async def test_a_wrong_message_is_refused_and_no_job_is_made(
    stub: FileServiceStub, uploads: Uploads, requests: list[Any], reason: str, text: str
) -> None:
    error = await send(stub, *requests)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert text in str(error.details())
    assert uploads.completed == []


async def test_a_wrong_configuration_that_comes_first_is_refused_before_the_file(
    stub: FileServiceStub, uploads: Uploads
) -> None:
    await send(stub, config(model="huge"), data(FLAC))
    await send(stub, config(), data(b"text" * 5000))
    assert uploads.begun == 0


async def test_a_client_that_stops_sending_is_cut_off(stub: FileServiceStub, uploads: Uploads) -> None:
    async def messages() -> AsyncIterator[pb.TranscribeFileRequest]:
        yield config()
        yield data(FLAC)
        await asyncio.sleep(60)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.TranscribeFile(messages()):
            pass
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert uploads.completed == []


async def test_a_tenant_uploads_a_few_files_at_a_time(stub: FileServiceStub) -> None:
    refused = asyncio.Event()

    async def messages() -> AsyncIterator[pb.TranscribeFileRequest]:
        yield config()
        await refused.wait()
        yield data(FLAC)
        yield END

    async def code() -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.TranscribeFile(messages()).read()
        return raised.value.code()

    uploads = [asyncio.create_task(code()) for _ in range(3)]
    (first,), others = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert await first is grpc.StatusCode.RESOURCE_EXHAUSTED
    refused.set()
    assert grpc.StatusCode.RESOURCE_EXHAUSTED not in await asyncio.gather(*others)


@pytest.mark.parametrize("is_first", [True, False])
async def test_part_of_a_file_whose_client_disconnects_makes_no_job(
    stub: FileServiceStub, uploads: Uploads, is_first: bool
) -> None:
    for _ in range(30):
        begun = asyncio.Event()

        async def messages(begun: asyncio.Event = begun) -> AsyncIterator[pb.TranscribeFileRequest]:
            if is_first:
                yield config()
            yield data(FLAC[:18_000])
            begun.set()
            await asyncio.sleep(60)

        call = stub.TranscribeFile(messages())
        await begun.wait()
        await asyncio.sleep(0.01)
        call.cancel()
    await asyncio.sleep(0.3)
    assert uploads.begun > 0
    assert uploads.completed == []
