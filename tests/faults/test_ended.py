"""Sessions that are ended by a request at another server, or by the revocation of their key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest
from dalston.v1 import key_pb2, key_pb2_grpc, session_pb2, session_pb2_grpc
from pydantic import SecretStr

from domain.credentials import SCOPES
from edge.closing import error_info
from persistence.config import PersistenceSettings
from persistence.postgres.api_keys import ApiKey, KeyStore
from persistence.postgres.database import open_database
from persistence.postgres.tenants import TenantStore
from tests.faults.client import PatternClient
from tests.faults.pattern import BYTES_PER_SECOND
from tests.faults.proxy import Proxy
from tests.faults.scenario import LEASE_SECONDS, Expected, Scenario
from tests.faults.servers import ServerProcess, a_server

WITHIN_SECONDS = 10.0


@dataclass
class Pair:
    """Two servers with one Postgres, and keys of two tenants."""

    scenario: Scenario
    one: ServerProcess
    other: ServerProcess
    secrets: dict[str, str]
    keys: dict[str, ApiKey]

    def shown(self, name: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.secrets[name]}"),)

    async def stream(self, server: ServerProcess, key: str, tag: int, **more: bool) -> PatternClient:
        client = PatternClient(server.channel(), tag, metadata=self.shown(key), **more)
        await client.begin()
        return client

    async def end(self, server: ServerProcess, session_id: str, key: str = "admin") -> session_pb2.Session:
        request = session_pb2.EndSessionRequest(session_id=session_id)
        async with server.channel() as channel:
            stub = session_pb2_grpc.SessionServiceStub(channel)
            return await stub.EndSession(request, metadata=self.shown(key), timeout=20)

    async def revoke(self, server: ServerProcess, key: str) -> None:
        request = key_pb2.RevokeKeyRequest(key_id=self.keys[key].key_id)
        async with server.channel() as channel:
            await key_pb2_grpc.KeyServiceStub(channel).RevokeKey(request, metadata=self.shown("admin"))

    async def token(self, key: str) -> str:
        async with self.other.channel() as channel:
            stub = key_pb2_grpc.KeyServiceStub(channel)
            return str((await stub.CreateToken(key_pb2.CreateTokenRequest(), metadata=self.shown(key))).token)


def reason_of(error: grpc.aio.AioRpcError | None) -> str:
    assert error is not None
    info = error_info(error.trailing_metadata() or ())
    return info.reason if info else error.code().name


@pytest.fixture
async def database(scenario: Scenario) -> AsyncIterator[Proxy]:
    port = int(scenario.database_url.rpartition(":")[2].partition("/")[0])
    async with Proxy("127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture
async def pair(scenario: Scenario, database: Proxy) -> AsyncIterator[Pair]:
    secrets, keys = {}, {}
    async with open_database(PersistenceSettings(database_url=SecretStr(scenario.database_url))) as direct:
        for name, tenant_name in (("admin", "acme"), ("laptop", "acme"), ("rival", "rival")):
            tenant = await TenantStore(direct).ensure(tenant_name)
            keys[name], secrets[name] = await KeyStore(direct).create(tenant.id, name, SCOPES)
    async with AsyncExitStack() as parts:
        servers = [
            await parts.enter_async_context(
                a_server(
                    scenario.environment(scenario.new_spool(), auth="keys", postgres_port=database.port),
                    scenario.folder / f"server-{number}.log",
                )
            )
            for number in range(2)
        ]
        yield Pair(scenario, *servers, secrets, keys)


@pytest.mark.timeout(120)
async def test_a_session_is_ended_at_a_server_that_does_not_run_it(pair: Pair) -> None:
    client, neighbour = await pair.stream(pair.one, "laptop", 1), await pair.stream(pair.one, "laptop", 2)
    # To the middle of an utterance: its words come before the end.
    await client.send(2 * BYTES_PER_SECOND + 16_000)
    await client.flush()
    await client.send(16_000)
    await client.until_received(client.sent)
    for key, session_id in (("rival", client.session_id), ("admin", "sess_" + "0" * 32)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await pair.end(pair.other, session_id, key)
        assert reason_of(refused.value) == "SESSION_NOT_FOUND"
    asked = await pair.end(pair.other, client.session_id)
    assert asked.status == "active"
    await client.closed(WITHIN_SECONDS)
    assert reason_of(client.error) == "SESSION_ENDED"
    await neighbour.send(BYTES_PER_SECOND)
    await neighbour.finish()
    await pair.scenario.settled()
    await pair.scenario.compare([Expected.of(client)])
    assert (await pair.scenario.row(client.session_id))["error"] == "session_ended: the session was ended on request"
    again = await pair.end(pair.other, client.session_id)
    assert (again.status, again.ended_at.ToDatetime()) == (
        "interrupted",
        (await pair.scenario.row(client.session_id))["ended_at"].replace(tzinfo=None),
    )
    # It may still be continued.
    more = PatternClient(pair.other.channel(), 1, metadata=pair.shown("laptop"))
    await more.resume(client)
    await more.finish()
    for each in (client, neighbour, more):
        await each.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["revoked", pytest.param("expired", marks=pytest.mark.long)])
async def test_revoking_a_key_ends_its_sessions_only_on_all_servers(pair: Pair, way: str) -> None:
    pair.secrets["token"] = await pair.token("laptop")
    ended = [
        await pair.stream(pair.one, "laptop", 1),
        await pair.stream(pair.other, "laptop", 2),
        await pair.stream(pair.one, "token", 3),
        await pair.stream(pair.other, "laptop", 4, store_audio=False, store_transcript=False),
    ]
    others = [await pair.stream(server, "admin", 5) for server in (pair.one, pair.other)]
    for client in (*ended, *others):
        await client.send(BYTES_PER_SECOND)
        await client.flush()
    if way == "revoked":
        await pair.revoke(pair.other, "laptop")
    else:
        async with pair.scenario.postgres() as connection:
            await connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", pair.keys["laptop"].id)
    async with asyncio.timeout(WITHIN_SECONDS):
        await asyncio.gather(*(client.closed() for client in ended))
    assert [reason_of(client.error) for client in ended] == ["UNAUTHENTICATED"] * 4
    for client in others:
        await client.send(BYTES_PER_SECOND)
        await client.finish()
        assert client.reason == "OK"
    await pair.scenario.settled()
    await pair.scenario.compare([Expected.of(client) for client in ended])
    for client in ended:
        error = (await pair.scenario.row(client.session_id))["error"]
        assert error == "unauthenticated: the key of this session was revoked or has expired"
        await client.close()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_end_requests_survive_an_outage_of_postgres_without_waiting(pair: Pair, database: Proxy) -> None:
    client = await pair.stream(pair.one, "laptop", 1)
    await client.send(BYTES_PER_SECOND)
    await client.flush()
    database.refuse()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await pair.end(pair.other, client.session_id)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    async with pair.scenario.postgres() as connection:
        # As if the answer alone were lost.
        await connection.execute("UPDATE realtime_sessions SET end_requested_at = now()")
    await client.send(BYTES_PER_SECOND)
    await client.flush()
    assert client.is_open
    database.restore()
    await client.closed(2 * WITHIN_SECONDS)
    assert reason_of(client.error) == "SESSION_ENDED"
    await pair.scenario.settled()
    await pair.scenario.compare([Expected.of(client)])
    await client.close()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_session_of_a_dead_server_is_ended_by_those_that_live(pair: Pair) -> None:
    client = await pair.stream(pair.one, "laptop", 1)
    await client.send(BYTES_PER_SECOND)
    await client.flush()
    await pair.one.kill()
    assert (await pair.end(pair.other, client.session_id)).status == "active"
    async with asyncio.timeout(LEASE_SECONDS + 2 * WITHIN_SECONDS):
        while (await pair.end(pair.other, client.session_id)).status == "active":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert (await pair.scenario.row(client.session_id))["status"] == "interrupted"
    await client.close()


@pytest.mark.long
@pytest.mark.timeout(60)
async def test_a_client_that_does_not_read_is_ended_with_its_key(pair: Pair) -> None:
    client = await pair.stream(pair.one, "laptop", 1)
    pair_reading = client._reading
    assert pair_reading is not None
    pair_reading.cancel()
    await client.send(60 * BYTES_PER_SECOND)
    await pair.revoke(pair.other, "laptop")
    async with asyncio.timeout(2 * WITHIN_SECONDS):
        while (await pair.scenario.row(client.session_id))["status"] == "active":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await client.close()
