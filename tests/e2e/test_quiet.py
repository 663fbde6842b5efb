"""A session and a watch in which nothing happens. They wait at once, in two stacks: other traffic would help them."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import Client, Outcome
from tests.e2e.harness import Harness, grpc_bearer
from tests.faults.watcher import Watcher

SECONDS = 17
"""Longer than a hop suffers another that pings too much, and than a watch goes without a word."""


@pytest.fixture(scope="module")
async def watcher(harness: Harness) -> AsyncIterator[Watcher]:
    """Sees no session: those of the house are another tenant's."""
    key = await harness.make_tenant("watching", "sessions:read")
    watcher = Watcher(harness.channel, metadata=grpc_bearer(key))
    await watcher.until(lambda told: "ready" in told.kinds)
    yield watcher
    await watcher.close()


@pytest.fixture(scope="module")
async def quiet(client: Client, watcher: Watcher) -> Outcome:
    """A session in which nobody sends anything until its end."""
    async with client.open() as socket:
        begin = json.loads(await socket.recv())
        await asyncio.sleep(SECONDS)
        return await client.talk(socket, [begin], '{"type":"end"}')


def test_a_quiet_stream_outlives_the_keepalives(quiet: Outcome) -> None:
    """Every hop pings; a hop that pings more than the next one suffers loses all streams of its connection."""
    assert [message["type"] for message in quiet.messages] == ["session.begin", "session.end"]


@pytest.mark.usefixtures("quiet")
async def test_a_quiet_watch_has_a_heartbeat(watcher: Watcher) -> None:
    await watcher.until(lambda told: told.kinds[-1] == "heartbeat", 8)
    assert set(watcher.kinds) == {"ready", "heartbeat"}
