"""Who may, on every door of a stack with DALSTON_AUTH=keys, through Envoy.

The walk takes its methods and routes from the descriptors: one that is added is walked without a word here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import httpx
import pytest
from dalston.v1 import key_pb2, session_pb2, transcription_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.call import ServerCall
from server.access.scopes import SCOPES as NEEDED
from server.app import SERVICES
from server.rpc import unimplemented
from stack.parts import Programs
from stack.ports import free_port
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.faults.servers import SCRIPTED

EVERYTHING = ("realtime", "sessions:read", "sessions:write", "admin")
STORED = "store_audio=true&store_transcript=true"
STREAM = "/v1/audio/transcriptions/stream"
PROGRAMS = Programs(weights=(sys.executable, "-c", "pass"), server=(sys.executable, "-m", SCRIPTED))
NOBODYS = "key_" + "0" * 32


@dataclass(frozen=True)
class Door:
    """One way to a method: gRPC, or its REST route."""

    method: MethodDescriptor
    verb: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.path}" if self.verb else f"{self.method.containing_service.name}.{self.method.name}"

    @property
    def is_built(self) -> bool:
        return self.method.name not in unimplemented.METHODS


def methods() -> Iterator[MethodDescriptor]:
    for module in (transcription_pb2, session_pb2, key_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert service.full_name in SERVICES
            yield from service.methods


def doors() -> Iterator[Door]:
    for method in methods():
        yield Door(method)
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        for one in (rule, *rule.additional_bindings):
            if verb := one.WhichOneof("pattern"):
                yield Door(method, verb.upper(), getattr(one, verb))


DOORS = list(doors())
each_door = pytest.mark.parametrize("door", DOORS, ids=str)


@dataclass
class Answer:
    """What came of one try, in gRPC's words whatever the door."""

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
class House:
    """The stack, its doors, and what a test makes in it."""

    stack: Stack
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    database: asyncpg.Connection
    admin: str = ""
    sessions: dict[str, str] = field(default_factory=dict)
    """Of the first tenant: one in each state, stored to its end unless it runs or is deleted."""
    key: str = ""
    """The id of a key of the first tenant."""

    async def operate(self, *words: str) -> dict[str, Any]:
        """The operator's command, which is a process beside the stack."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "persistence.access",
            *words,
            "--json",
            env={"DALSTON_DATABASE_URL": self.stack.database_url},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return dict(json.loads(out))

    async def make_tenant(self, name: str, *scopes: str, **limits: float) -> str:
        """A key of a tenant, which is made if it is not there."""
        made = await self.operate("create-key", "--tenant", name, "--name", "test", "--scopes", ",".join(scopes))
        if limits:
            words = [word for name, value in limits.items() for word in (f"--{name.replace('_', '-')}", str(value))]
            await self.operate("set-limits", "--tenant", name, *words)
        return str(made["secret"])

    async def make_key(self, *scopes: str, **more: Any) -> dict[str, Any]:
        body = {"name": "test", "scopes": scopes, **more}
        answer = await self.http.post("/v1/keys", json=body, headers=bearer(self.admin))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def make_token(self, key: str, **body: Any) -> str:
        answer = await self.http.post("/v1/realtime/tokens", json=body, headers=bearer(key))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def try_door(self, door: Door, secret: str | None, session_id: str | None = None) -> Answer:
        ids = {"session_id": session_id or self.sessions["completed"], "key_id": self.key, "format": "txt"}
        if door.verb:
            return await self._rest(door, secret, ids)
        return await self._grpc(door, secret, ids)

    async def _rest(self, door: Door, secret: str | None, ids: dict[str, str]) -> Answer:
        body = {"name": "walked", "scopes": ["realtime"]} if door.method.name == "CreateKey" else {}
        more = {"json": body} if door.verb == "POST" else {}
        answer = await self.http.request(door.verb, door.path.format(**ids), headers=bearer(secret), **more)  # type: ignore[arg-type]
        if answer.status_code == 200:
            return Answer("OK", headers=dict(answer.headers), body=answer.content)
        assert answer.headers["content-type"] == "application/json"
        said = answer.json()
        code = NAMES[said["code"]]
        assert answer.status_code == HTTP_STATUS[code]
        info = next(each for each in said["details"] if each["@type"].endswith("ErrorInfo"))
        metadata = info.get("metadata", {})
        return Answer(code, info["reason"], said["message"], metadata, dict(answer.headers))

    async def _grpc(self, door: Door, secret: str | None, ids: dict[str, str]) -> Answer:
        method = door.method
        request = GetMessageClass(method.input_type)()
        for name in method.input_type.fields_by_name:
            if name in ids:
                setattr(request, name, ids[name])
        if method.name == "CreateKey":
            request.name = "walked"
            request.scopes.append("realtime")
        path = f"/{method.containing_service.full_name}/{method.name}"
        codecs = {
            "request_serializer": GetMessageClass(method.input_type).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        options: dict[str, Any] = {"metadata": grpc_bearer(secret), "timeout": 20}
        try:
            if method.client_streaming:
                return Answer("OK", body=await self._stream(self.channel.stream_stream(path, **codecs)(**options)))
            if method.server_streaming:
                call = self.channel.unary_stream(path, **codecs)(request, **options)
                return Answer("OK", body=[response async for response in call])
            return Answer("OK", body=await self.channel.unary_unary(path, **codecs)(request, **options))
        except grpc.aio.AioRpcError as error:
            return told(error)

    async def _stream(self, raw: Any) -> list[Any]:
        """A session without audio. As the bridge calls: grpc.aio loses the status of a call that is written to."""
        pb, call = transcription_pb2, ServerCall(raw)
        await call.write(pb.TranscribeRequest(config=pb.TranscribeConfig(language="en")))
        await call.write(pb.TranscribeRequest(control=pb.TranscribeControl(end=pb.TranscribeControl.End())))
        responses: list[Any] = []
        while (response := await call.read()) is not None:
            responses.append(response)
        return responses

    async def are_as_named(self) -> bool:
        """Whether all sessions are in their states, and stored where they are over."""
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


def told(error: grpc.aio.AioRpcError) -> Answer:
    trailing = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailing.get("grpc-status-details-bin", b""))  # type: ignore[arg-type]
    answer = Answer(error.code().name, message=error.details() or "")
    for detail in status.details:
        info, retry = ErrorInfo(), RetryInfo()
        if detail.Unpack(info):
            answer.reason, answer.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            answer.retry_after = retry.retry_delay.seconds
    return answer


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Waits for what nothing announces."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = StackSettings(
        home=tmp_path_factory.mktemp("keyed"),
        port=free_port(),
        auth="keys",
        allowed_origins="https://app.example",
        database_url=None,
        s3_endpoint_url=None,
        s3_bucket=None,
    )
    with running_stack(settings, programs=PROGRAMS) as stack:
        yield stack


@pytest.fixture(scope="module")
async def house(keyed: Stack) -> AsyncIterator[House]:
    async with (
        httpx.AsyncClient(base_url=keyed.base_url, timeout=20, trust_env=False) as http,
        grpc.aio.insecure_channel(keyed.grpc_target) as channel,
    ):
        database = await asyncpg.connect(keyed.database_url)
        house = House(keyed, http, channel, database)
        house.admin = await house.make_tenant("acme", *EVERYTHING, requests_per_second=1000)
        house.key = (await house.make_key("realtime"))["key"]["id"]
        for state in ("completed", "deleted"):
            _, messages = await house.socket(STORED, **bearer(house.admin))
            house.sessions[state] = messages[-1]["session_id"]
        gone = await http.delete(f"/v1/realtime/sessions/{house.sessions['deleted']}", headers=bearer(house.admin))
        assert gone.status_code == 200
        for state, frame in (("error", b"abc"), ("interrupted", None)):
            async with house.connect(STORED, house.admin) as socket:
                house.sessions[state] = json.loads(await socket.recv())["session_id"]
                await (socket.send(frame) if frame else socket.close())
                await socket.wait_closed()
        async with house.connect(STORED, house.admin) as socket:
            house.sessions["active"] = json.loads(await socket.recv())["session_id"]
            await until(house.are_as_named)
            yield house
        await database.close()


@pytest.fixture(scope="module")
async def revoked(house: House) -> str:
    made = await house.make_key(*EVERYTHING)
    answer = await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))
    assert answer.status_code == 200
    return str(made["secret"])


@pytest.fixture(scope="module")
async def expired(house: House) -> str:
    made = await house.make_key(*EVERYTHING, expires_in_seconds=60)
    key_id = UUID(hex=made["key"]["id"].removeprefix("key_"))
    await house.database.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", key_id)
    return str(made["secret"])


@pytest.fixture(scope="module")
async def others(house: House) -> str:
    """A key of another tenant that may do everything."""
    return await house.make_tenant("rival", *EVERYTHING, requests_per_second=1000)


WRONG = "dk_" + "w" * 43


def test_every_method_of_every_service_has_a_scope_and_a_name_of_its_own() -> None:
    names = [method.name for method in methods()]
    assert sorted(names) == sorted(NEEDED)
    assert len(SERVICES) == len({method.containing_service.full_name for method in methods()})


@each_door
async def test_no_key_and_a_wrong_and_a_revoked_and_an_expired_one_are_refused_alike(
    house: House, door: Door, revoked: str, expired: str
) -> None:
    secrets = None, WRONG, "nonsense", revoked, expired, house.admin[:-1] + ("A" if house.admin[-1] != "A" else "Q")
    answers = [await house.try_door(door, secret) for secret in secrets]
    assert {answer.code for answer in answers} == {"UNAUTHENTICATED"}
    assert {answer.reason for answer in answers} == {"UNAUTHENTICATED"}
    assert len({answer.message for answer in answers}) == 1
    if door.verb:
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


@each_door
async def test_a_key_without_the_scope_is_told_which_it_lacks(house: House, door: Door) -> None:
    needed = NEEDED[door.method.name]
    lacking = await house.make_key(*(scope for scope in EVERYTHING if scope != needed))
    answer = await house.try_door(door, lacking["secret"])
    assert (answer.code, answer.reason, answer.metadata) == (
        "PERMISSION_DENIED",
        "PERMISSION_DENIED",
        {"scope": needed},
    )
    assert needed in answer.message


@each_door
async def test_what_is_another_tenant_s_is_not_there(house: House, door: Door, others: str) -> None:
    fields = door.method.input_type.fields_by_name
    if not {"session_id", "key_id"} & set(fields):
        answer = await house.try_door(door, others)
        assert answer.code == ("OK" if door.is_built else "UNIMPLEMENTED")
        seen = answer.body if isinstance(answer.body, bytes) else str(answer.body).encode()
        for mine in (*house.sessions.values(), house.key):
            assert mine.encode() not in (seen or b"")
        return
    for session_id in house.sessions.values():
        answer = await house.try_door(door, others, session_id)
        if not door.is_built:
            assert answer.code == "UNIMPLEMENTED"
            continue
        assert (answer.code, answer.reason) in {("NOT_FOUND", "SESSION_NOT_FOUND"), ("NOT_FOUND", "KEY_NOT_FOUND")}
        nobodys = await house.try_door(door, others, "sess_" + "0" * 32)
        assert nobodys.code == "NOT_FOUND"


async def test_the_owner_sees_what_the_others_do_not(house: House) -> None:
    for state, session_id in house.sessions.items():
        answer = await house.http.get(f"/v1/realtime/sessions/{session_id}", headers=bearer(house.admin))
        assert answer.status_code == (404 if state == "deleted" else 200)
        assert answer.json().get("status", "deleted") == state
    path = f"/v1/realtime/sessions/{house.sessions['completed']}/audio"
    assert (await house.http.get(path, headers=bearer(house.admin))).status_code == 200


async def test_health_and_reflection_are_open(house: House) -> None:
    answer = await health_pb2_grpc.HealthStub(house.channel).Check(
        health_pb2.HealthCheckRequest(service="dalston.v1.KeyService")
    )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_web_asks_for_a_key_too(house: House) -> None:
    headers = {"content-type": "application/grpc-web+proto", "accept": "application/grpc-web+proto"}
    path = "/dalston.v1.SessionService/ListSessions"
    refused = await house.http.post(path, content=bytes(5), headers=headers)
    assert refused.headers["grpc-status"] == "16"
    served = await house.http.post(path, content=bytes(5), headers=headers | bearer(house.admin))
    assert b"grpc-status:0" in served.content or served.headers.get("grpc-status") == "0"


# --- the WebSocket


async def test_the_websocket_takes_a_key_in_the_header_and_in_the_query(house: House) -> None:
    for query, headers in ((f"api_key={house.admin}", {}), ("", bearer(house.admin)), (f"token={house.admin}", {})):
        code, messages = await house.socket(query, **headers)
        assert (code, messages[0]["type"]) == (1000, "session.begin")


async def test_the_websocket_refuses_who_has_no_right_to_it(house: House, revoked: str, expired: str) -> None:
    for query in ("", f"api_key={WRONG}", f"api_key={revoked}", f"token={expired}", "token=nonsense"):
        code, messages = await house.socket(query)
        assert (code, messages[-1]["code"]) == (4001, "unauthenticated"), query
    reader = await house.make_key("sessions:read")
    code, messages = await house.socket(f"api_key={reader['secret']}")
    assert (code, messages[-1]["code"]) == (4003, "permission_denied")
    assert "realtime" in messages[-1]["message"]


async def test_the_websocket_does_not_go_on_with_another_tenant_s_session(house: House, others: str) -> None:
    for session_id in house.sessions.values():
        _, messages = await house.socket(f"resume_session_id={session_id}&api_key={others}")
        if "resume_session_id" in unimplemented.CONFIG_FIELDS:
            assert messages[-1]["code"] == "unimplemented"
        else:
            assert messages[-1]["code"] == "session_not_found"


async def test_what_is_logged_of_a_call_names_its_tenant_and_key(house: House) -> None:
    made = await house.make_key("sessions:read")
    await house.http.get("/v1/realtime/sessions", headers=bearer(made["secret"]))

    async def is_logged() -> bool:
        lines = house.stack.home.log("server").read_text().splitlines()
        return any(made["key"]["id"] in line and "call ended" in line and "tenant_id" in line for line in lines)

    await until(is_logged)
    ended = [line for line in house.stack.home.log("server").read_text().splitlines() if "call ended" in line]
    assert not [line for line in ended if "UNAUTHENTICATED" in line and "tenant_id" in line]


async def test_a_token_opens_one_live_session_once_and_nothing_else(house: House) -> None:
    key = (await house.make_key("realtime", "sessions:read"))["secret"]
    token = await house.make_token(key)
    assert (await house.http.get("/v1/realtime/sessions", headers=bearer(token))).status_code == 401
    assert (await house.http.post("/v1/realtime/tokens", json={}, headers=bearer(token))).status_code == 401
    code, messages = await house.socket(f"token={token}&sample_rate=1")
    assert (code, messages[-1]["code"]) == (4400, "invalid_parameters"), "it is not spent by a session that never began"
    code, _ = await house.socket(f"token={token}")
    assert code == 1000
    code, messages = await house.socket(f"token={token}")
    assert (code, messages[-1]["code"]) == (4001, "unauthenticated")


async def test_a_token_of_a_revoked_key_opens_nothing(house: House) -> None:
    made = await house.make_key("realtime")
    token = await house.make_token(made["secret"])
    await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))
    assert (await house.socket(f"token={token}"))[0] == 4001


async def test_a_page_of_another_host_cannot_use_a_token(house: House) -> None:
    token = await house.make_token(house.admin)
    for name in ("token", "api_key"):
        with pytest.raises(InvalidStatus) as refused:
            await house.socket(f"{name}={token}", Origin="https://evil.example")
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        await house.socket(f"token={token}", Origin=house.stack.base_url.replace("http://", "https://"))
    code, _ = await house.socket(f"token={token}", Origin="https://app.example")
    assert code == 1000
    token = await house.make_token(house.admin)
    code, _ = await house.socket(f"token={token}", Origin=house.stack.base_url)
    assert code == 1000


# --- keys


async def test_a_revoked_key_is_refused_within_seconds(house: House) -> None:
    made = await house.make_key("sessions:read")
    path = "/v1/realtime/sessions"
    assert (await house.http.get(path, headers=bearer(made["secret"]))).status_code == 200
    await house.http.delete(f"/v1/keys/{made['key']['id']}", headers=bearer(house.admin))

    async def is_refused() -> bool:
        return (await house.http.get(path, headers=bearer(made["secret"]))).status_code == 401

    await until(is_refused, 10)


async def test_keys_over_rest(house: House) -> None:
    made = await house.make_key("sessions:read", "realtime", expires_in_seconds=3600)
    key = made["key"]
    assert set(key) == {"id", "name", "prefix", "scopes", "created_at", "expires_at"}
    assert made["secret"].startswith(key["prefix"])
    listed = (await house.http.get("/v1/keys?limit=1", headers=bearer(house.admin))).json()
    assert [each["id"] for each in listed["keys"]] == [key["id"]]
    assert "secret" not in json.dumps(listed)
    # As `curl -d` sends it.
    headers = {"content-type": "application/x-www-form-urlencoded", **bearer(house.admin)}
    curled = await house.http.post("/v1/realtime/tokens", content='{"expires_in_seconds": 10}', headers=headers)
    assert curled.status_code == 200
    older = await house.http.get(f"/v1/keys?cursor={listed['next_cursor']}", headers=bearer(house.admin))
    assert key["id"] not in older.text
    gone = await house.http.delete(f"/v1/keys/{key['id']}", headers=bearer(house.admin))
    assert gone.json()["revoked_at"]
    assert (await house.http.delete(f"/v1/keys/{NOBODYS}", headers=bearer(house.admin))).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/v1/keys", {"scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "x" * 101, "scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "a\nb", "scopes": ["realtime"]}, "name"),
        ("/v1/keys", {"name": "x"}, "scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["root"]}, "scopes"),
        ("/v1/keys", {"name": "x", "scopes": ["admin"], "expires_in_seconds": 59}, "expires_in_seconds"),
        ("/v1/realtime/tokens", {"expires_in_seconds": 601}, "expires_in_seconds"),
        ("/v1/realtime/tokens", {"expires_in_seconds": 0}, "expires_in_seconds"),
    ],
)
async def test_what_is_wrong_with_a_key_is_named(house: House, path: str, body: dict[str, Any], parameter: str) -> None:
    answer = await house.http.post(path, json=body, headers=bearer(house.admin))
    assert answer.status_code == 400
    assert answer.json()["details"][0]["metadata"] == {"parameter": parameter}
    assert parameter in answer.json()["message"]


async def test_a_body_too_large_is_refused(house: House) -> None:
    answer = await house.http.post("/v1/keys", json={"name": "x" * 70_000}, headers=bearer(house.admin))
    assert answer.status_code == 413


# --- limits


async def test_a_tenant_runs_so_many_sessions_and_is_told_on_every_door(house: House) -> None:
    key = await house.make_tenant("small", "realtime", max_sessions=1, max_session_seconds=77, idle_timeout_seconds=33)
    async with house.connect("", key) as socket:
        begin = json.loads(await socket.recv())
        assert begin["limits"] == {
            "max_session_seconds": 77,
            "idle_timeout_seconds": 33,
            "max_message_bytes": 65536,
        }
        code, messages = await house.socket("", **bearer(key))
        assert (code, messages[-1]["code"], messages[-1]["recoverable"]) == (4429, "too_many_sessions", True)
        transcribe = next(door for door in DOORS if door.method.name == "Transcribe")
        answer = await house.try_door(transcribe, key)
        assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
        assert answer.retry_after == 5

    async def is_free() -> bool:
        return (await house.socket("", **bearer(key)))[0] == 1000

    await until(is_free, 10)


async def test_a_refused_resume_leaves_the_session_of_a_silent_client_alone(house: House) -> None:
    key = await house.make_tenant("quiet", "realtime", max_sessions=2)
    async with house.connect("", key) as socket, house.connect("", key) as other:
        session_id = json.loads(await socket.recv())["session_id"]
        await other.recv()
        await asyncio.sleep(2.5)
        resume = f"resume_session_id={session_id}"
        for refused in ("&resume_from_seconds=9", "&sample_rate=8000"):
            _, messages = await house.socket(resume + refused, **bearer(key))
            assert messages[-1]["code"] == "invalid_parameters"
        # At the limit: the one that is continued makes room for the one that continues it.
        _, messages = await house.socket(resume, **bearer(key))
        assert messages[0]["type"] == "session.begin"
        with suppress(ConnectionClosed):
            async for text in socket:
                ended = json.loads(text)
        assert (ended["code"], "resumed_by" in ended) == ("session_resumed", False)


async def test_an_idle_session_of_a_tenant_ends_at_the_tenant_s_limit(house: House) -> None:
    key = await house.make_tenant("hasty", "realtime", idle_timeout_seconds=0.5)
    async with house.connect("", key) as socket:
        with pytest.raises(ConnectionClosed):
            while True:
                await asyncio.wait_for(socket.recv(), 10)
        assert socket.close_code == 4408


async def test_a_tenant_calls_so_often_and_is_told_on_every_door(house: House) -> None:
    key = await house.make_tenant("eager", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions"
    assert (await house.http.get(path, headers=bearer(key))).status_code == 200
    answer = await house.http.get(path, headers=bearer(key))
    assert answer.status_code == 429
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 100
    assert "dalston-try-elsewhere" not in answer.headers
    info, retry = answer.json()["details"]
    assert (info["reason"], info["metadata"]) == ("RATE_LIMITED", {"retry_after_seconds": str(seconds)})
    assert retry["retryDelay" if "retryDelay" in retry else "retry_delay"] == f"{seconds}s"
    listing = next(door for door in DOORS if door.method.name == "ListSessions" and not door.verb)
    native = await house.try_door(listing, key)
    assert (native.code, native.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert native.retry_after
    code, messages = await house.socket("", **bearer(key))
    assert (code, messages[-1]["code"]) == (4429, "rate_limited")


async def test_a_tenant_at_its_limit_is_not_sent_to_another_server(house: House) -> None:
    """Envoy's own log says how often it tried."""
    key = await house.make_tenant("patient", *EVERYTHING, requests_per_second=0.01)
    path = "/v1/realtime/sessions/sess_patient"
    for _ in range(2):
        answer = await house.http.get(path, headers=bearer(key))
    assert answer.status_code == 429

    def attempts() -> list[int]:
        entries = map(json.loads, house.stack.home.log("access").read_text().splitlines())
        return [entry["attempts"] for entry in entries if entry["path"] == path]

    async def is_logged() -> bool:
        return len(attempts()) == 2

    await until(is_logged)
    assert attempts() == [1, 1]


# --- what is not said


async def test_no_key_and_no_token_is_in_any_log_or_in_the_database(house: House, revoked: str, expired: str) -> None:
    fresh = (await house.make_key(*EVERYTHING))["secret"]
    token = await house.make_token(fresh)
    await house.http.get("/v1/realtime/sessions", headers=bearer(fresh))
    await house.http.get(f"/v1/realtime/sessions?api_key={fresh}")
    await house.http.get(f"/v1/nothing?token={token}&api_key={fresh}")
    await house.http.get(f"{STREAM}?api_key={fresh}")
    await house.socket(f"api_key={fresh}&colour=red")
    await house.socket(f"api_key={fresh}")
    await house.socket(f"token={token}")
    await house.socket(f"token={token}")
    await house.try_door(DOORS[0], fresh)
    marker = "/v1/realtime/sessions/last-of-all"
    await house.http.get(marker, headers=bearer(fresh))

    async def is_logged() -> bool:
        return marker in house.stack.home.log("access").read_text()

    await until(is_logged)
    secrets = [each[11:] for each in (fresh, token, house.admin, revoked, expired)]
    logs = list(house.stack.home.path.glob("logs/*")) + list((house.stack.home.path / "envoy").glob("*.json"))
    assert {"access.log", "server.log", "bridge.log", "envoy.log", "postgres.log"} <= {log.name for log in logs}
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [each for each in secrets if each in text], log.name
    tables = await house.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = "\n".join(row[0] for row in await house.database.fetch(f"SELECT t::text FROM {table} AS t"))  # noqa: S608
        assert not [each for each in secrets if each in rows], table


# --- pages of other hosts


async def test_pages_of_named_hosts_may_ask_and_no_others(house: House) -> None:
    ask = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    path = "/v1/realtime/sessions"
    allowed = await house.http.request("OPTIONS", path, headers={"origin": "https://app.example", **ask})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    refused = await house.http.request("OPTIONS", path, headers={"origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in refused.headers
    for origin, may_read in (("https://app.example", True), ("https://evil.example", False)):
        answer = await house.http.get(path, headers={"origin": origin, **bearer(house.admin)})
        assert answer.status_code == 200
        assert ("access-control-allow-origin" in answer.headers) is may_read
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_walk_covers_all_three_services() -> None:
    assert {door.method.containing_service.name for door in DOORS} == {
        "TranscriptionService",
        "SessionService",
        "KeyService",
    }
