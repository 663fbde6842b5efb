"""An idle session. Nothing else uses the stack meanwhile: other traffic would keep its connections alive."""

import asyncio
import json

from tests.e2e.conftest import Client

SECONDS = 17
"""Longer than the time after which a hop objects to frequent pings."""


async def test_an_idle_stream_survives_keepalives(client: Client) -> None:
    """Every hop pings; a hop that pings more often than the next one allows loses all streams of its connection."""
    async with client.open() as socket:
        begin = json.loads(await socket.recv())
        await asyncio.sleep(SECONDS)
        outcome = await client.talk(socket, [begin], '{"type":"end"}')
    assert [message["type"] for message in outcome.messages] == ["session.begin", "session.end"]
