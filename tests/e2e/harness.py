"""A stack with DALSTON_AUTH=keys, and clients of its gRPC, REST and WebSocket interfaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import httpx
from dalston.grpc_call import GrpcCall
from dalston.v1 import file_pb2, job_pb2, key_pb2, session_pb2, status_pb2, transcription_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from domain.credentials import Scope
from persistence.config import PersistenceSettings
from persistence.postgres.api_keys import KeyStore
from persistence.postgres.database import open_database
from persistence.postgres.tenants import TenantStore
from persistence.wav import WavFormat
from server.app import SERVICES
from stack.supervisor import Stack

EVERYTHING = ("realtime", "sessions:read", "sessions:write", "admin")
STORED = "store_audio=true&store_transcript=true"
STREAM = "/v1/audio/transcriptions/stream"
IDLE = ("ready", "heartbeat")
"""The messages of a stream of changes that has nothing further to send for now."""
UNKNOWN_KEY_ID = "key_" + "0" * 32
UNKNOWN_LOGIN_ID = "login_" + "0" * 32


@dataclass(frozen=True)
class Route:
    """One interface to a method: gRPC, or a REST route."""

    method: MethodDescriptor
    verb: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.path}" if self.verb else f"{self.method.containing_service.name}.{self.method.name}"

    @property
    def is_endless(self) -> bool:
        return self.method.name in ("WatchSessions", "WatchUtterances")


def all_methods() -> Iterator[MethodDescriptor]:
    for module in (transcription_pb2, session_pb2, job_pb2, file_pb2, key_pb2, status_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert service.full_name in SERVICES
            yield from service.methods


def routes() -> Iterator[Route]:
    for method in all_methods():
        yield Route(method)
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for one in (rule, *rule.additional_bindings):
            if verb := one.WhichOneof("pattern"):
                yield Route(method, verb.upper(), getattr(one, verb))


ROUTES = list(routes())


@dataclass
class CallResult:
    """The result of one call, as a gRPC status, over gRPC and over REST."""

    code: str
    reason: str = ""
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: int | None = None
    body: Any = None


HTTP_STATUS = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
}
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass
class Harness:
    """The stack, its clients, and the tenants, keys and sessions of the tests."""

    stack: Stack
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    database: asyncpg.Connection
    admin: str = ""
    sessions: dict[str, str] = field(default_factory=dict)
    """Sessions of the first tenant by state, completely stored unless active or deleted."""
    key: str = ""
    """The id of a key of the first tenant."""
    job: str = ""
    """The id of a canceled batch job of the first tenant."""

    async def make_tenant(self, name: str, *scopes: Scope, **limits: float | None) -> str:
        """Creates a key as the operator's command does, and its tenant unless it exists. Returns the secret."""
        settings = PersistenceSettings(database_url=SecretStr(self.stack.database_url))
        async with open_database(settings) as database:
            tenant = await TenantStore(database).ensure(name, limits)
            _, secret = await KeyStore(database).create(tenant.id, "test", scopes)
        return secret

    async def make_key(self, *scopes: str, **more: Any) -> dict[str, Any]:
        body = {"name": "test", "scopes": scopes, **more}
        answer = await self.http.post("/v1/keys", json=body, headers=bearer(self.admin))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def make_token(self, key: str, **body: Any) -> str:
        answer = await self.http.post("/v1/realtime/tokens", json=body, headers=bearer(key))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def call_route(self, route: Route, secret: str | None, session_id: str | None = None) -> CallResult:
        ids = {"session_id": session_id or self.sessions["completed"], "key_id": self.key, "job_id": self.job}
        ids |= {"format": "txt", "version": "2", "login_id": UNKNOWN_LOGIN_ID}
        if route.method.name == "ListJobs":
            del ids["session_id"]  # it selects some of the list
        if route.verb:
            return await self._rest(route, secret, ids)
        return await self._grpc(route, secret, ids)

    async def _rest(self, route: Route, secret: str | None, ids: dict[str, Any]) -> CallResult:
        body = {"name": "called", "scopes": ["realtime"]} if route.method.name == "CreateKey" else {}
        more = {"json": body} if route.verb == "POST" else {}
        if route.is_endless:
            return await self._rest_lines(route, secret, ids)
        answer = await self.http.request(route.verb, route.path.format(**ids), headers=bearer(secret), **more)  # type: ignore[arg-type]
        return self._rest_answer(answer)

    async def _rest_lines(self, route: Route, secret: str | None, ids: dict[str, Any]) -> CallResult:
        """The first part of an endless response."""
        async with self.http.stream(route.verb, route.path.format(**ids), headers=bearer(secret)) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return self._rest_answer(answer)
            body = b""
            async for line in answer.aiter_lines():
                body += line.encode()
                if json.loads(line)["type"] in IDLE:
                    break
            return CallResult("OK", headers=dict(answer.headers), body=body)

    def _rest_answer(self, answer: httpx.Response) -> CallResult:
        if answer.status_code == 200:
            return CallResult("OK", headers=dict(answer.headers), body=answer.content)
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        code = NAMES[body["code"]]
        assert answer.status_code == HTTP_STATUS[code]
        info = next(each for each in body["details"] if each["@type"].endswith("ErrorInfo"))
        metadata = info.get("metadata", {})
        return CallResult(code, info["reason"], body["message"], metadata, dict(answer.headers))

    async def _grpc(self, route: Route, secret: str | None, ids: dict[str, Any]) -> CallResult:
        method = route.method
        request = GetMessageClass(method.input_type)()
        for name in method.input_type.fields_by_name:
            if name in ids:
                setattr(request, name, int(ids[name]) if name == "version" else ids[name])
        if method.name == "CreateKey":
            request.name = "called"
            request.scopes.append("realtime")
        path = f"/{method.containing_service.full_name}/{method.name}"
        codecs = {
            "request_serializer": GetMessageClass(method.input_type).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        options: dict[str, Any] = {"metadata": grpc_bearer(secret), "timeout": 20}
        try:
            if method.client_streaming:
                call = self.channel.stream_stream(path, **codecs)(**options)
                return CallResult("OK", body=await self._stream(call, request))
            if method.server_streaming:
                call = self.channel.unary_stream(path, **codecs)(request, **options)
                responses = []
                async for response in call:
                    responses.append(response)
                    if route.is_endless and response.type in IDLE:
                        call.cancel()
                        break
                return CallResult("OK", body=responses)
            return CallResult("OK", body=await self.channel.unary_unary(path, **codecs)(request, **options))
        except grpc.aio.AioRpcError as error:
            return result_of_error(error)

    async def _stream(self, raw: Any, request: Any) -> list[Any]:
        """A session without audio or a file, with the status that the server sent."""
        pb, call = transcription_pb2, GrpcCall(raw)
        request.config.language = "en"
        if isinstance(request, file_pb2.TranscribeFileRequest):
            file = WavFormat("pcm_s16le", 16_000, 1).header(3200) + bytes(3200)
            await call.write(file_pb2.TranscribeFileRequest(data=file))
            await call.write(request)
            await call.half_close()
            # No worker does the job.
            response = await call.read()
            raw.cancel()
            return [response]
        await call.write(request)
        await call.write(pb.TranscribeRequest(control=pb.TranscribeControl(end=pb.TranscribeControl.End())))
        responses: list[Any] = []
        while (response := await call.read()) is not None:
            responses.append(response)
        return responses

    async def are_in_their_states(self) -> bool:
        """Whether all sessions are in their states, and the ended ones are stored."""
        rows = await self.database.fetch("SELECT id, status, audio_uri FROM realtime_sessions")
        found = {
            f"sess_{row['id'].hex}": row["status"] for row in rows if row["audio_uri"] or row["status"] == "active"
        }
        return all(found.get(session_id) == state for state, session_id in self.sessions.items() if state != "deleted")

    def connect(self, query: str, key: str) -> connect:
        return connect(f"{self.stack.ws_url}{STREAM}?{query}", proxy=None, additional_headers=bearer(key))

    async def socket(self, query: str = "", **headers: str) -> tuple[int | None, list[dict[str, Any]]]:
        """A short session over the WebSocket: its close code and its messages."""
        messages = []
        url = f"{self.stack.ws_url}{STREAM}?{query}"
        async with connect(url, proxy=None, additional_headers=headers) as socket:
            with suppress(ConnectionClosed):
                await socket.send('{"type":"end"}')
            with suppress(ConnectionClosed):
                async for text in socket:
                    messages.append(json.loads(text))  # noqa: PERF401 - what came before an error counts
            return socket.close_code, messages


def bearer(secret: str | None) -> dict[str, str]:
    return {} if secret is None else {"authorization": f"Bearer {secret}"}


def grpc_bearer(secret: str | None) -> tuple[tuple[str, str], ...]:
    return tuple(bearer(secret).items())


def result_of_error(error: grpc.aio.AioRpcError) -> CallResult:
    trailing = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailing.get("grpc-status-details-bin", b""))  # type: ignore[arg-type]
    answer = CallResult(error.code().name, message=error.details() or "")
    for detail in status.details:
        info, retry = ErrorInfo(), RetryInfo()
        if detail.Unpack(info):
            answer.reason, answer.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            answer.retry_after = retry.retry_delay.seconds
    return answer


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Polls a condition until it is true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
