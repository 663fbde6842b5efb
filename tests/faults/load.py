"""Live streams for the server that a test breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.scenario import Expected
from tests.faults.servers import ServerProcess

STREAMS: Final = 20
FAST: Final = 40.0
"""Times speech, for the streams that are to reach their second and third part within seconds."""


@asynccontextmanager
async def streams(
    server: ServerProcess, count: int = STREAMS, first_tag: int = 1, *, port: int | None = None
) -> AsyncIterator[list[PatternClient]]:
    """Sessions that have begun: every fifth fast enough to have parts, every seventh stores only one of the two."""
    clients = [
        PatternClient(
            server.channel(port),
            tag=first_tag + number,
            speed=FAST if number % 5 == 0 else random.choice([1.0, 2.0, 4.0]),
            store_audio=number % 7 != 3,
            store_transcript=number % 7 != 5,
        )
        for number in range(count)
    ]
    async with AsyncExitStack() as stack:
        for client in clients:
            stack.push_async_callback(client.close)
        await asyncio.gather(*(client.begin() for client in clients))
        yield clients


async def until_killed(server: ServerProcess, clients: list[PatternClient], seconds: float) -> list[Expected]:
    """Streams until `kill -9`; returns what had been acknowledged by then."""
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.stream(seconds + 5))
        await asyncio.sleep(seconds)
        await server.kill()
        await asyncio.gather(*(client.closed() for client in clients))
    FIGURES.add("kills survived")
    return [Expected.of(client) for client in clients]


async def stream_all(clients: list[PatternClient], seconds: float) -> None:
    """Streams all sessions at once, for so many seconds."""
    await asyncio.gather(*(client.stream(seconds) for client in clients))


async def finish_all(clients: list[PatternClient], seconds: float = 60) -> list[Expected]:
    """Ends all sessions; returns what was acknowledged."""
    await asyncio.gather(*(client.finish(seconds) for client in clients))
    return [Expected.of(client) for client in clients]
