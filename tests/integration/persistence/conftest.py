"""Persistence on a real Postgres and a real S3 server, behind TCP proxies that can cut and stall, and a gRPC server on
loopback with a servicer that transcribes nothing but keeps to the conventions of the real one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc
from pydantic import SecretStr
from sqlalchemy import text

from persistence.config import PersistenceSettings
from persistence.database import Database, open_database
from persistence.errors import LeaseLost, ObjectNotFound, SessionNotFound, StorageUnavailable
from persistence.keys import SESSIONS_PREFIX, audio_key, transcript_key
from persistence.linked import Link
from persistence.objects import ObjectStore, open_objects
from persistence.records import Ending, SessionRecord
from persistence.service import _CLOSE_SECONDS, Persistence, open_persistence
from persistence.session_id import new_session_id, parse_session_id
from persistence.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from stack.settings import ROOT
from telemetry.deadline import Deadline


class Proxy:
    """A TCP proxy on loopback that can cut its connections, refuse new ones and stall all of them."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self._flowing.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection."""
        for writer in list(self._writers):
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def refuse(self) -> None:
        """Resets every connection and every new one."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Holds back every byte from now on."""
        self._flowing.clear()

    def restore(self) -> None:
        self._refusing = False
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream = None
        try:
            far_reader, upstream = await asyncio.open_connection(*self._target)
            self._writers |= {writer, upstream}
            await asyncio.gather(self._pump(reader, upstream), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


@dataclass
class Parrot(transcription_pb2_grpc.TranscriptionServiceServicer):
    """Says one final for every `message_count` audio messages, and one for what is left at the end."""

    message_count: int = 2
    language: str = "en"
    fail_at_message: int | None = None
    final_seconds: float = 0.0
    acks: bool = False
    text: Callable[[int], str] = lambda number: f"this is final {number}"
    finals: list[str] = field(default_factory=list)

    async def Transcribe(self, requests: Any, context: Any) -> None:
        config = (await anext(requests)).config
        session_id = new_session_id()
        begin = pb.SessionBegin(
            session_id=session_id,
            config=pb.SessionConfig(
                sample_rate=config.sample_rate or 16000,
                encoding=config.encoding or "pcm_s16le",
                channels=config.channels or 1,
                language=config.language or "auto",
                model=config.model or "fast",
            ),
        )
        await context.write(pb.TranscribeResponse(session_begin=begin))
        heard = 0
        async for request in requests:
            if request.control.HasField("end"):
                break
            if request.WhichOneof("request") == "audio":
                heard += 1
                if self.acks:
                    await context.write(pb.TranscribeResponse(audio_ack=pb.AudioAck(processed_seconds=0.25)))
                if heard == self.fail_at_message:
                    raise ValueError("the parrot choked")
                if heard % self.message_count == 0:
                    await self._say(context)
        if heard % self.message_count:
            await self._say(context)
        await context.write(pb.TranscribeResponse(session_end=pb.SessionEnd(session_id=session_id)))

    async def _say(self, context: Any) -> None:
        await asyncio.sleep(self.final_seconds)
        number = len(self.finals) + 1
        self.finals.append(self.text(number))
        final = pb.Final(
            text=self.finals[-1], start=number - 1.0, end=float(number), confidence=0.5, language=self.language
        )
        await context.write(pb.TranscribeResponse(final=final))


class Authentication(grpc.aio.ServerInterceptor):
    """Makes every caller the default tenant and turns StorageUnavailable into UNAVAILABLE, as the server does."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def behave(requests: Any, context: Any) -> None:
            current_caller.set(Caller(DEFAULT_TENANT_ID))
            try:
                await handler.stream_stream(requests, context)
            except StorageUnavailable as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return grpc.stream_stream_rpc_method_handler(behave, handler.request_deserializer, handler.response_serializer)


def classify(error: BaseException) -> Ending:
    return Ending("interrupted" if isinstance(error, LeaseLost) else "error", str(error))


@dataclass
class House:
    """Everything a test looks at."""

    settings: PersistenceSettings
    database: Database
    objects: ObjectStore
    postgres: Proxy
    s3: Proxy
    persistence: Persistence
    parrot: Parrot
    address: str
    spool_dir: Path

    def channel(self, address: str | None = None) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address or self.address)

    async def record(self, session_id: str) -> SessionRecord:
        return await self.persistence.sessions.get(DEFAULT_TENANT_ID, session_id)

    async def chain(self, session_id: str) -> tuple[Link, ...]:
        return await self.persistence.chains.read(DEFAULT_TENANT_ID, session_id, linked=False)

    async def ended(self, session_id: str, *, stored: bool = True) -> SessionRecord:
        """The record once the session has ended, and is stored when it is to be."""
        async with asyncio.timeout(20):
            while True:
                with suppress(StorageUnavailable, SessionNotFound):
                    record = await self.record(session_id)
                    waits = stored and (
                        (record.store_audio and not record.audio_uri)
                        or (record.store_transcript and not record.transcript_uri)
                    )
                    if record.status != "active" and not waits:
                        return record
                await asyncio.sleep(0.05)

    async def row_of(self, session_id: str) -> dict[str, Any] | None:
        """The row with all its columns, also that of a deleted session."""
        query = text("SELECT * FROM realtime_sessions WHERE id = :id")
        async with self.database.transaction() as connection:
            row = (await connection.execute(query, {"id": parse_session_id(session_id)})).mappings().one_or_none()
        return None if row is None else {str(name): value for name, value in row.items()}

    async def audio(self, session_id: str) -> bytes:
        return await self._object(audio_key(parse_session_id(session_id)))

    async def transcript(self, session_id: str) -> dict[str, Any]:
        return json.loads(await self._object(transcript_key(parse_session_id(session_id))))  # type: ignore[no-any-return]

    async def has_objects(self, session_id: str) -> bool:
        for key in (audio_key, transcript_key):
            with suppress(ObjectNotFound):
                await self.objects.size(key(parse_session_id(session_id)))
                return True
        return False

    async def _object(self, key: str) -> bytes:
        size, chunks = await self.objects.get(key)
        data = b"".join([chunk async for chunk in chunks])
        assert len(data) == size
        return data

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.spool_dir.glob("*/sess_*"))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for what nothing announces."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def no_spool(self) -> None:
        await self.until(lambda: not self.spooled())


@pytest.fixture(scope="session")
def real_settings(postgres_url: str, s3: Any) -> PersistenceSettings:
    """The real servers, reached directly."""
    return PersistenceSettings(
        database_url=SecretStr(postgres_url),
        database_deadline_seconds=2.0,
        s3_endpoint_url=s3.endpoint_url,
        s3_bucket=s3.bucket,
        s3_region=s3.region,
        s3_access_key_id=SecretStr(s3.access_key_id),
        s3_secret_access_key=SecretStr(s3.secret_access_key),
        s3_deadline_seconds=3.0,
    )


@pytest.fixture
def make_settings(real_settings: PersistenceSettings, tmp_path: Path) -> Callable[..., PersistenceSettings]:
    def make(**changes: Any) -> PersistenceSettings:
        values: dict[str, Any] = {
            "spool_dir": tmp_path / "spool",
            "worker_id": f"test-{uuid.uuid4().hex[:12]}",
        }
        return PersistenceSettings(**real_settings.model_dump() | values | changes)

    return make


@pytest.fixture(scope="session")
async def database(real_settings: PersistenceSettings) -> AsyncIterator[Database]:
    async with open_database(real_settings) as database:
        yield database


@pytest.fixture(scope="session")
async def objects(real_settings: PersistenceSettings) -> AsyncIterator[ObjectStore]:
    async with open_objects(real_settings) as objects:
        await objects.ensure_bucket()
        yield objects


@pytest.fixture
async def empty_store(database: Database, objects: ObjectStore) -> None:
    """For `verify`, which looks at everything there is: tests leave a great many sessions."""
    async with database.transaction() as connection:
        await connection.exec_driver_sql("TRUNCATE realtime_sessions CASCADE")
    await objects.delete_all(await objects.list(SESSIONS_PREFIX))
    for key in await objects.uploads_below(SESSIONS_PREFIX):
        await objects.abort_uploads(key)


@pytest.fixture
async def tenant(postgres_url: str) -> uuid.UUID:
    """A tenant of the test's own."""
    tenant_id = uuid.uuid4()
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, $2)", tenant_id, str(tenant_id))
    await connection.close()
    return tenant_id


@pytest.fixture
async def postgres_proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    url = urlsplit(postgres_url)
    async with Proxy(str(url.hostname), int(url.port or 5432)) as proxy:
        yield proxy


@pytest.fixture
async def s3_proxy(s3: Any) -> AsyncIterator[Proxy]:
    url = urlsplit(s3.endpoint_url)
    async with Proxy(str(url.hostname), int(url.port or 80)) as proxy:
        yield proxy


@pytest.fixture
def proxied(
    make_settings: Callable[..., PersistenceSettings], postgres_url: str, postgres_proxy: Proxy, s3_proxy: Proxy
) -> Callable[..., PersistenceSettings]:
    """Settings whose Postgres and S3 are reached through the proxies."""
    url = urlsplit(postgres_url)
    through = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{postgres_proxy.port}")).geturl()

    def make(**changes: Any) -> PersistenceSettings:
        values = {
            "database_url": SecretStr(through),
            "s3_endpoint_url": f"http://127.0.0.1:{s3_proxy.port}",
        }
        return make_settings(**values | changes)

    return make


@asynccontextmanager
async def serving(persistence: Persistence, parrot: Parrot) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=(Authentication(), persistence.interceptor))
    transcription_pb2_grpc.add_TranscriptionServiceServicer_to_server(parrot, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0.2)


@pytest.fixture
def build_house(
    proxied: Callable[..., PersistenceSettings],
    database: Database,
    objects: ObjectStore,
    postgres_proxy: Proxy,
    s3_proxy: Proxy,
) -> Callable[..., Any]:
    @asynccontextmanager
    async def build(*, close_grace_seconds: float = 10.0, **changes: Any) -> AsyncIterator[House]:
        """`close_grace_seconds`: how long ended sessions may take to be stored when the house is left."""
        settings = proxied(**changes)
        parrot, deadline = Parrot(), Deadline()
        async with AsyncExitStack() as stack:
            persistence = await stack.enter_async_context(open_persistence(settings, classify, deadline))
            stack.callback(deadline.begin, close_grace_seconds + _CLOSE_SECONDS)
            address = await stack.enter_async_context(serving(persistence, parrot))
            yield House(
                settings,
                database,
                objects,
                postgres_proxy,
                s3_proxy,
                persistence,
                parrot,
                address,
                settings.spool_dir,
            )

    return build


@pytest.fixture
async def house(build_house: Callable[..., Any]) -> AsyncIterator[House]:
    async with build_house() as house:
        yield house


class Client:
    """One Transcribe stream, message by message."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float | None = None) -> None:
        self._stub = transcription_pb2_grpc.TranscriptionServiceStub(channel)
        self.call: Any = self._stub.Transcribe(timeout=timeout)
        self.session_id = ""

    async def begin(self, **config: Any) -> str:
        await self.call.write(pb.TranscribeRequest(config=pb.TranscribeConfig(**config)))
        response = await self.call.read()
        if response is grpc.aio.EOF:
            await self.call  # raises the status
        self.session_id = response.session_begin.session_id
        return str(self.session_id)

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            await self.call.write(pb.TranscribeRequest(audio=message))

    async def end(self) -> None:
        control = pb.TranscribeControl(end=pb.TranscribeControl.End())
        await self.call.write(pb.TranscribeRequest(control=control))

    async def final(self) -> str:
        return str((await self.call.read()).final.text)

    async def rest(self) -> list[pb.TranscribeResponse]:
        responses = []
        while (response := await self.call.read()) is not grpc.aio.EOF:
            responses.append(response)
        return responses


@pytest.fixture
def client_of() -> type[Client]:
    return Client


def environment_of(settings: PersistenceSettings) -> dict[str, str]:
    values = settings.model_dump()
    plain = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in values.items()
        if value is not None
    }
    # This tree, whichever is installed.
    here = {"PYTHONPATH": str(ROOT)}
    return {**os.environ, **here, **{f"DALSTON_{name.upper()}": value for name, value in plain.items()}}


@asynccontextmanager
async def _victim(settings: PersistenceSettings) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("victim.py")),
        env=environment_of(settings),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def a_victim() -> Callable[..., Any]:
    """A process that records, to be killed; its settings given, gives the process and its address."""
    return _victim
