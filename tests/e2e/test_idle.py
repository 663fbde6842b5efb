"""An idle session and an idle watch. They wait at the same time, in two stacks: other traffic would keep them alive."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import Client, Outcome
from tests.e2e.harness import Harness, grpc_bearer
from tests.faults.watcher import Watcher

SECONDS = 17
"""Longer than the time after which a hop objects to frequent pings, and than the heartbeat of a watch."""


@pytest.fixture(scope="module")
async def watcher(harness: Harness) -> AsyncIterator[Watcher]:
    """A watcher that sees no session: those of the harness belong to another tenant."""
    key = await harness.make_tenant("watching", "sessions:read")
    watcher = Watcher(harness.channel, metadata=grpc_bearer(key))
    await watcher.until(lambda watcher: "ready" in watcher.kinds)
    yield watcher
    await watcher.close()


@pytest.fixture(scope="module")
async def idle(client: Client, watcher: Watcher) -> Outcome:
    """The outcome of a session without any message until its end."""
    async with client.open() as socket:
        begin = json.loads(await socket.recv())
        await asyncio.sleep(SECONDS)
        return await client.talk(socket, [begin], '{"type":"end"}')


def test_an_idle_stream_survives_keepalives(idle: Outcome) -> None:
    """Every hop pings; a hop that pings more often than the next one allows loses all streams of its connection."""
    assert [message["type"] for message in idle.messages] == ["session.begin", "session.end"]


@pytest.mark.usefixtures("idle")
async def test_an_idle_watch_has_a_heartbeat(watcher: Watcher) -> None:
    await watcher.until(lambda watcher: watcher.kinds[-1] == "heartbeat", 8)
    assert set(watcher.kinds) == {"ready", "heartbeat"}
