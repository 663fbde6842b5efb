from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from edge.channel import open_channel
from stack.ports import free_port
from tests.integration.uploads.scripted_server import KEY, Files, scripted_server
from uploads.config import UploadsSettings
from uploads.listener import open_listener

WAV = b"RIFF" + bytes(2000)


@dataclass
class Service:
    """An uploads process in this one, in front of a scripted server."""

    files: Files
    port: int
    http: httpx.AsyncClient

    async def post(self, file: Any = WAV, **fields: Any) -> httpx.Response:
        """Sends a file as openai-python does."""
        return await self.http.post(
            "/v1/audio/transcriptions", data={"model": "whisper-1", **fields}, files={"file": ("a.wav", file)}
        )


Start = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server and the process in front of it, with settings."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Service:
            server_port = free_port()
            files = await stack.enter_async_context(scripted_server(f"127.0.0.1:{server_port}"))
            channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{server_port}"))
            own = UploadsSettings(uploads_port=0, shutdown_seconds=0, **{"auth": "keys", **settings})
            port = await stack.enter_async_context(open_listener(own, channel))
            client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=30,
                trust_env=False,
            )
            return Service(files, port, await stack.enter_async_context(client))

        yield start


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()
