"""The process itself: settings, its start, and its end by a signal."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from stack.ports import free_port
from tests.integration.uploads.scripted_server import KEY, Files, scripted_server

PATH = "/v1/audio/transcriptions"


@asynccontextmanager
async def process(
    folder: Path, target: str, ready: str = "/health", **settings: str
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    path = folder / "uploads.sock"
    env = {
        **os.environ,
        "DALSTON_UPLOADS_SOCKET": str(path),
        "DALSTON_SERVER_TARGET": target,
        "DALSTON_AUTH": "keys",
        **settings,
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uploads", env=env, stderr=asyncio.subprocess.PIPE
    )
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        async with httpx.AsyncClient(
            base_url="http://uploads", transport=transport, headers=headers, timeout=30
        ) as client:
            await until_ready(client, ready)
            yield running, client
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def until_ready(client: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await client.get(path)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, Files]]:
    target = f"127.0.0.1:{free_port()}"
    async with scripted_server(target) as files:
        yield target, files


async def has_job(files: Files) -> None:
    async with asyncio.timeout(20):
        while not any(call.job for call in files.calls):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)


async def test_a_request_that_runs_is_finished_before_the_process_ends(
    tmp_path: Path, server: tuple[str, Files]
) -> None:
    target, files = server
    async with process(tmp_path, target) as (running, client):
        request = asyncio.create_task(client.post(PATH, files={"file": b"slow"}))
        await has_job(files)
        running.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert running.returncode is None
        files.go_on.set()
        assert (await request).json()["text"] == "Hello there. Good bye!"
        assert await asyncio.wait_for(running.wait(), 20) == 0


async def test_a_request_that_takes_longer_than_the_grace_period_is_refused_with_a_reason(
    tmp_path: Path, server: tuple[str, Files]
) -> None:
    target, files = server
    async with process(tmp_path, target, DALSTON_SHUTDOWN_SECONDS="0.3") as (running, client):
        request = asyncio.create_task(client.post(PATH, files={"file": b"slow"}))
        await has_job(files)
        running.send_signal(signal.SIGTERM)
        response = await request
        assert (response.status_code, response.headers["x-should-retry"]) == (503, "true")
        assert "the same job" in response.json()["error"]["message"]
        assert await asyncio.wait_for(running.wait(), 20) == 0


async def test_without_a_server_requests_are_refused_and_the_process_is_not_ready(tmp_path: Path) -> None:
    async with process(tmp_path, f"127.0.0.1:{free_port()}", ready="/healthz") as (_, client):
        assert (await client.get("/health")).status_code == 503
        response = await client.post(PATH, files={"file": b"RIFF"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "server_overloaded")


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"DALSTON_UPLOADS_PORT": "x"}, 2, "DALSTON_UPLOADS_PORT"),
        ({"DALSTON_MODEL_ALIASES": "x"}, 2, "DALSTON_MODEL_ALIASES"),
        ({"DALSTON_UPLOADS_HOST": "0.0.0.0"}, 2, "DALSTON_AUTH=none"),  # noqa: S104 - refused
        ({"DALSTON_UPLOADS_HOST": "192.0.2.1", "DALSTON_AUTH": "keys"}, 1, "cannot listen on 192.0.2.1"),
    ],
)
async def test_a_wrong_setting_is_one_sentence(settings: dict[str, str], code: int, message: str) -> None:
    env = {**os.environ, **settings}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uploads", env=env, stderr=asyncio.subprocess.PIPE
    )
    _, error = await asyncio.wait_for(running.communicate(), 30)
    assert running.returncode == code
    assert message in error.decode().splitlines()[-1]
