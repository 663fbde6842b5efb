"""Envoy, an uploads process behind it, and a scripted server behind that; for clients that are processes too."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from stack.envoy import Endpoints, envoy
from stack.ports import free_port
from stack.process import running
from tests.integration.uploads.scripted_server import Files, scripted_server

ORIGIN = "https://app.example"
ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Front:
    """The public address, and the script behind it."""

    url: str
    files: Files
    loop: asyncio.AbstractEventLoop = field(repr=False)

    def let_go(self) -> None:
        """Jobs of files that begin with `slow` end."""
        self.loop.call_soon_threadsafe(self.files.go_on.set)

    def hold(self) -> None:
        """Such jobs wait again."""
        self.loop.call_soon_threadsafe(self.files.go_on.clear)


@contextmanager
def front_of(folder: Path, **limits: Any) -> Iterator[Front]:
    """Runs all three while the block runs."""
    server_port, uploads_port = free_port(), free_port()
    endpoints = Endpoints(
        ["127.0.0.1"],
        free_port(),
        server_port,
        free_port(),
        uploads_port,
        origins=(ORIGIN,),
        requests_each=1000,
        **limits,
    )
    env = {
        **os.environ,
        "DALSTON_UPLOADS_PORT": str(uploads_port),
        "DALSTON_SERVER_TARGET": f"127.0.0.1:{server_port}",
        "DALSTON_AUTH": "keys",
    }
    command = [sys.executable, "-m", "uploads"]
    with (
        _server(f"127.0.0.1:{server_port}") as (files, loop),
        running("uploads", command, log=folder / "uploads.log", cwd=ROOT, env=env),
        envoy(folder / "envoy", endpoints),
    ):
        front = Front(f"http://127.0.0.1:{endpoints.port}", files, loop)
        _wait_until_served(front)
        yield front


@contextmanager
def _server(address: str) -> Iterator[tuple[Files, asyncio.AbstractEventLoop]]:
    """The scripted server in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted server")
    thread.start()
    server = scripted_server(address)
    files = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(20)
    try:
        yield files, loop
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _wait_until_served(front: Front) -> None:
    """Envoy has found its upstreams healthy."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{front.url}/v1/models").status_code != 401:
        if time.monotonic() > deadline:
            raise TimeoutError("Envoy does not serve")
        time.sleep(0.1)
