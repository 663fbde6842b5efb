"""P8: a deletion killed at each of its steps; another server, or the same one, finishes it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from dalston.v1 import session_pb2, session_pb2_grpc

from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy
from tests.faults.load import finish_all, stream_all, streams
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario
from tests.faults.servers import ServerProcess, a_server

_MOST_STEPS = 12
_FEW_STEPS = 2


async def delete(server: ServerProcess, session_id: str, seconds: float = 20) -> grpc.StatusCode:
    async with server.channel() as channel:
        try:
            request = session_pb2.DeleteSessionRequest(session_id=session_id)
            await session_pb2_grpc.SessionServiceStub(channel).DeleteSession(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def visible(server: ServerProcess, session_id: str) -> bool:
    async with server.channel() as channel:
        request = session_pb2.GetSessionRequest(session_id=session_id)
        call = session_pb2_grpc.SessionServiceStub(channel).GetSession(request, timeout=10)
        code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
    return bool(code is grpc.StatusCode.OK)


async def recorded(server: ServerProcess, scenario: Scenario, tag: int) -> str:
    """Records a session and waits until it is stored to its end."""
    async with streams(server, 1, first_tag=tag) as clients:
        await stream_all(clients, 1)
        await finish_all(clients)
        await scenario.settled()
        return clients[0].session_id


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fate", [pytest.param(Fate.HANG, marks=pytest.mark.long), Fate.HANG_AFTER])
async def test_killed_at_each_request_to_s3(scenario: Scenario, s3_http: HttpProxy, full: bool, fate: Fate) -> None:
    """The server dies while the n-th request of the deletion is in transfer, or while its answer is."""
    spool = scenario.new_spool()
    environment = scenario.environment(spool, s3_port=s3_http.port)
    deleted: list[str] = []
    for step in range(1, (_MOST_STEPS if full else _FEW_STEPS) + 1):
        async with a_server(environment, scenario.folder / "server.log") as server:
            session_id = await recorded(server, scenario, step)
            first = s3_http.requests.total()
            s3_http.rule = lambda request, at=first + step: fate if request.number == at else Fate.PASS
            before = s3_http.faults.total()
            deleting = asyncio.create_task(delete(server, session_id))
            while s3_http.faults.total() == before and not deleting.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if deleting.done():
                assert await deleting is grpc.StatusCode.OK
                assert not await visible(server, session_id)
                s3_http.restore()
                break
            await server.kill()
            FIGURES.add("deletes killed")
            assert await deleting is not grpc.StatusCode.OK
            s3_http.restore()
            deleted.append(session_id)
    async with a_server(environment, scenario.folder / "server.log") as server:
        for session_id in deleted:
            assert not await visible(server, session_id), "a delete that was begun has come undone"
        await scenario.until_nothing_is_left(spool, seconds=60)
        assert await scenario.keys() == []


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("before", [True, False])
async def test_cut_off_from_postgres_at_each_statement(scenario: Scenario, postgres_proxy: Proxy, before: bool) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, postgres_port=postgres_proxy.port)
    async with a_server(environment, scenario.folder / "server.log") as server:
        for step, statement in enumerate([b"UPDATE realtime_sessions", b"DELETE FROM realtime_sessions"], start=1):
            session_id = await recorded(server, scenario, step)
            postgres_proxy.cut_on(statement, before=before)
            code = await delete(server, session_id)
            if code is grpc.StatusCode.OK:
                assert not await visible(server, session_id)
            else:
                assert code is grpc.StatusCode.UNAVAILABLE
                again = await delete(server, session_id)
                assert again in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
            FIGURES.add("deletes cut off")
        await scenario.until_nothing_is_left(spool)
        assert await scenario.keys() == []


@pytest.mark.long
@pytest.mark.timeout(60)
async def test_a_running_session_is_not_deleted(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with (
        a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
        streams(server, 1) as clients,
    ):
        await stream_all(clients, 1)
        assert await delete(server, clients[0].session_id) is grpc.StatusCode.ABORTED
        expected = await finish_all(clients)
        assert clients[0].end is not None
        assert clients[0].end.audio_uri
        await scenario.compare(expected, statuses=("completed",))
