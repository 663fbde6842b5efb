"""The listener: handshakes, plain HTTP, limits, and graceful shutdown."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time

import pytest
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from bridge.config import BridgeSettings
from bridge.listener import open_listener
from edge import health
from edge.channel import open_channel

STREAM_PATH = "/v1/audio/transcriptions/stream"


async def request(port: int, head: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the response to a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    if not answer:
        return 0, {}, b""
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def test_liveness(bridge):
    status, headers, body = await request(bridge.port, "GET /healthz HTTP/1.1\nHost: x\n\n")
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", {"status": "ok"})
    status, _, body = await request(bridge.port, "HEAD /healthz HTTP/1.1\nHost: x\n\n")
    assert (status, body) == (200, b"")


UPGRADE = "Host: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"


def handshake(origin: str) -> str:
    """The handshake of a browser for a page of that origin."""
    return (
        "GET /v1/audio/transcriptions/stream HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: Upgrade\n"
        f"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: {origin}\n\n"
    )


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\nHost: x\n\n", 404),
        (f"GET /v1/nothing?api_key=k HTTP/1.1\n{UPGRADE}Sec-WebSocket-Version: 13\n\n", 404),
        (f"GET {STREAM_PATH}/ HTTP/1.1\n{UPGRADE}Sec-WebSocket-Version: 13\n\n", 404),
        (f"GET {STREAM_PATH} HTTP/1.1\nHost: x\n\n", 426),
        (f"POST {STREAM_PATH} HTTP/1.1\nHost: x\n\n", 405),
        (handshake("https://evil.example"), 403),
        (handshake("null"), 403),
        ("DELETE /healthz HTTP/1.1\nHost: x\n\n", 405),
        (f"GET {STREAM_PATH} HTTP/1.1\n{UPGRADE}Sec-WebSocket-Version: 8\n\n", 400),
        (f"GET {STREAM_PATH} HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n\n", 400),
    ],
)
async def test_other_requests_get_an_error_in_json(bridge, head, status):
    got, headers, body = await request(bridge.port, head)
    assert got == status
    assert headers["Content-Type"] == "application/json"
    error = json.loads(body)
    assert error["message"]
    assert set(error) == {"code", "message", "details"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET {STREAM_PATH}?{'x' * 70000} HTTP/1.1\n\n", 414),
        (f"GET {STREAM_PATH} HTTP/1.1\nX: {'x' * 70000}\n\n", 431),
        (f"GET {STREAM_PATH} HTTP/1.1\n" + "X: y\n" * 200 + "\n", 431),
        ("BREW coffee\n\n", 0),
        (f"GET {STREAM_PATH} HTTP/1.1\nContent-Length: 5\n\nhello", 0),
    ],
)
async def test_invalid_and_oversized_requests_are_refused(bridge, head, status):
    assert (await request(bridge.port, head))[0] == status
    assert (await request(bridge.port, "GET /healthz HTTP/1.1\n\n"))[0] == 200


async def test_many_large_headers_are_not_collected(bridge):
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 50000 + b"\r\n") * 4)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_handshake_that_takes_too_long_is_dropped(start_bridge):
    bridge = await start_bridge(bridge_handshake_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(b"GET /v1/audio")
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_clients_beyond_the_connection_limit_get_no_capacity(start_bridge):
    bridge = await start_bridge(bridge_max_connections=2)
    async with bridge.connect() as first, bridge.connect():
        await first.receive()
        async with bridge.connect() as third:
            messages, code = await third.rest()
        assert (messages[0]["code"], messages[0]["recoverable"], code) == ("no_capacity", True, 4503)
        assert (await request(bridge.port, "GET /healthz HTTP/1.1\n\n"))[0] == 200
        await first.send(type="end")
        await first.rest()
        async with bridge.connect() as fourth:
            assert (await fourth.receive())["type"] == "session.begin"


async def test_connections_without_a_handshake_are_limited_too(start_bridge, monkeypatch):
    monkeypatch.setattr("bridge.listener.SPARE_CONNECTIONS", 2)
    bridge = await start_bridge(bridge_max_connections=1)
    idle = [await asyncio.open_connection("127.0.0.1", bridge.port) for _ in range(4)]
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await idle[3][0].read() == b""
    assert not idle[2][0].at_eof()
    for _, writer in idle:
        writer.close()


async def test_the_bridge_offers_no_compression(bridge):
    async with connect(bridge.url, proxy=None) as socket_:
        assert "Sec-WebSocket-Extensions" not in socket_.response.headers


async def test_a_bug_in_the_relay_is_reported_with_its_incident_number(bridge, monkeypatch):
    def broken(_text):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("bridge.protocols.native.protocol.encode_response", broken)
    async with bridge.connect() as client:
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("internal", 1011)
    assert "secret" not in messages[0]["message"]
    async with asyncio.timeout(5):
        await (await bridge.servicer.stream()).ended.wait()


# The process as a whole.


async def start_process(**environment: str) -> asyncio.subprocess.Process:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DALSTON_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bridge",
        env=clean | {"DALSTON_LOG_FORMAT": "json"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(15):
        _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()


async def start_ready_process(backend, **environment: str) -> tuple[asyncio.subprocess.Process, str]:
    """A bridge process and the address of its WebSockets."""
    target = {"DALSTON_SERVER_TARGET": f"127.0.0.1:{backend.port}", "DALSTON_BRIDGE_PORT": "0"}
    process = await start_process(**target, **environment)
    async with asyncio.timeout(15):
        ready = json.loads(await process.stderr.readline())
    assert ready["event"] == "bridge ready"
    return process, f"ws://127.0.0.1:{ready['port']}{STREAM_PATH}"


async def test_sigterm_notifies_running_streams_and_exits_with_0(backend):
    process, url = await start_ready_process(backend, DALSTON_SHUTDOWN_SECONDS="0.5")
    try:
        async with connect(f"{url}?token=s3cret", proxy=None) as client:
            assert "session.begin" in await client.recv()
            process.send_signal(signal.SIGTERM)
            terminating = json.loads(await client.recv())
            assert terminating == {
                "type": "session.terminating",
                "reason": "shutdown",
                "resume_session_id": "sess_0",
                "grace_seconds": 0.5,
            }
            error = json.loads(await client.recv())
            assert (error["code"], error["recoverable"]) == ("server_shutdown", True)
            await client.wait_closed()
            assert client.close_code == 1012
        code, log = await finish(process)
        assert code == 0
        assert "s3cret" not in log
        async with asyncio.timeout(5):
            stream = await backend.servicer.stream()
            await stream.ended.wait()
        assert stream.cancelled
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_client_may_finish_within_the_grace_period(backend):
    process, url = await start_ready_process(backend, DALSTON_SHUTDOWN_SECONDS="20")
    try:
        async with connect(url, proxy=None) as client:
            await client.recv()
            process.send_signal(signal.SIGTERM)
            assert json.loads(await client.recv())["type"] == "session.terminating"
            with pytest.raises((ConnectionRefusedError, InvalidHandshake)):
                async with connect(url, proxy=None):
                    pass
            await client.send(bytes(32_000))
            await client.send(json.dumps({"type": "flush"}))
            assert json.loads(await client.recv()) == {"type": "flushed", "timestamp": 1.0}
            await client.send(json.dumps({"type": "end"}))
            assert json.loads(await client.recv())["type"] == "session.end"
            await client.wait_closed()
            assert client.close_code == 1000
        assert (await finish(process))[0] == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_second_sigterm_ends_the_process_at_once(backend):
    process, url = await start_ready_process(backend, DALSTON_SHUTDOWN_SECONDS="20")
    async with connect(url, proxy=None) as client:
        await client.recv()
        process.send_signal(signal.SIGTERM)
        assert json.loads(await client.recv())["type"] == "session.terminating"
        process.send_signal(signal.SIGTERM)
        code, _ = await finish(process)
    assert code == 128 + signal.SIGTERM


async def test_a_session_that_has_not_begun_at_shutdown_is_refused(backend):
    async def silent(_stream):
        await asyncio.Event().wait()

    backend.servicer.script = silent
    settings = BridgeSettings(bridge_port=0, shutdown_seconds=20, bridge_close_seconds=1)
    async with open_channel(f"127.0.0.1:{backend.port}") as channel:
        async with open_listener(settings, channel) as port:
            client = await connect(f"ws://127.0.0.1:{port}{STREAM_PATH}", proxy=None)
            receiving = asyncio.create_task(client.recv())
            await backend.servicer.stream()
        error = json.loads(await receiving)
        assert (error["code"], error["recoverable"]) == ("server_shutdown", True)
        await client.close()


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"DALSTON_BRIDGE_HOST": "0.0.0.0"}, 2, "refusing to listen on 0.0.0.0"),  # noqa: S104
        ({"DALSTON_BRIDGE_PORT": "http"}, 2, "DALSTON_BRIDGE_PORT"),
        ({}, 1, "cannot listen on 127.0.0.1"),
    ],
)
async def test_a_process_that_cannot_start_reports_one_sentence(environment, code, words):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        process = await start_process(**({"DALSTON_BRIDGE_PORT": str(busy.getsockname()[1])} | environment))
        got, log = await finish(process)
    assert got == code
    assert len(log.strip().splitlines()) == 1
    assert words in log


async def test_a_client_that_stays_after_the_grace_period_is_dropped(backend):
    settings = BridgeSettings(bridge_port=0, shutdown_seconds=0.3, bridge_close_seconds=1)
    async with open_channel(f"127.0.0.1:{backend.port}") as channel:
        async with open_listener(settings, channel) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"GET {STREAM_PATH} HTTP/1.1\n{UPGRADE}Sec-WebSocket-Version: 13\n\n"
            writer.write(head.replace("\n", "\r\n").encode())
            stream = await backend.servicer.stream()
            started = time.monotonic()
        assert time.monotonic() - started < 3
    async with asyncio.timeout(5):
        await stream.ended.wait()
    writer.close()


async def test_no_connection_is_accepted_after_the_shutdown(backend):
    async with open_channel(f"127.0.0.1:{backend.port}") as channel:
        async with open_listener(BridgeSettings(bridge_port=0), channel) as port:
            assert (await request(port, "GET /healthz HTTP/1.1\n\n"))[0] == 200
        with pytest.raises(ConnectionRefusedError):
            await request(port, "GET /healthz HTTP/1.1\n\n")


async def test_metrics_are_counted(bridge):
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"dalston_bridge_{name}", labels) or 0.0

    before = {name: value(name) for name in ("audio_bytes_total", "messages_sent_total", "begin_seconds_count")}
    completed = value("closed_total", code="1000")
    async with bridge.connect() as client:
        await client.receive()
        assert value("open_connections") == 1
        await client.socket.send(bytes(3200))
        await client.send(type="end")
        await client.rest()
    assert {name: value(name) - was for name, was in before.items()} == {
        "audio_bytes_total": 3200,
        "messages_sent_total": 2,
        "begin_seconds_count": 1,
    }
    assert value("closed_total", code="1000") == completed + 1


async def test_readiness_is_the_health_of_the_server(bridge, backend, monkeypatch):
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    status, headers, body = await request(bridge.port, "GET /health HTTP/1.1\nHost: x\n\n")
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", {"status": "healthy"})
    status, _, body = await request(bridge.port, "HEAD /health HTTP/1.1\nHost: x\n\n")
    assert (status, body) == (200, b"")
    await backend.drain()
    status, _, body = await request(bridge.port, "GET /health HTTP/1.1\nHost: x\n\n")
    assert (status, json.loads(body)) == (503, {"status": "unhealthy"})
    await backend.stop()
    status, _, body = await request(bridge.port, "GET /v1/realtime/status HTTP/1.1\nHost: x\n\n")
    assert (status, json.loads(body)) == (503, {"status": "unavailable"})


async def test_status_counts_only_sessions_of_the_caller(bridge, backend):
    ask = "GET /v1/realtime/status HTTP/1.1\nHost: x\n"
    # A server that does not count sessions.
    assert json.loads((await request(bridge.port, f"{ask}\n"))[2]) == {"status": "ready"}
    backend.sessions.own = {"Bearer a": 2, "": 0}
    status, _, body = await request(bridge.port, f"{ask}Authorization: Bearer a\n\n")
    assert (status, json.loads(body)) == (200, {"status": "ready", "active_sessions": 2})
    status, _, body = await request(bridge.port, f"{ask}Authorization: Bearer wrong\n\n")
    assert (status, json.loads(body)["code"]) == (401, 16)
    del backend.sessions.own[""]
    assert json.loads((await request(bridge.port, f"{ask}\n"))[2]) == {"status": "ready"}


async def test_a_full_bridge_is_at_capacity(start_bridge):
    bridge = await start_bridge(bridge_max_connections=1)
    async with bridge.connect() as client:
        await client.receive()
        body = (await request(bridge.port, "GET /v1/realtime/status HTTP/1.1\nHost: x\n\n"))[2]
    assert json.loads(body) == {"status": "at_capacity"}
