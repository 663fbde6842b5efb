"""Clients that are refused and stay connected use no capacity, and nothing they send is an error of the bridge."""

import asyncio
import contextlib
import json
import logging
import os
import struct
from contextlib import AsyncExitStack

import grpc
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidMessage

from tests.integration.bridge.conftest import transcribe

HANDSHAKE = (
    "GET /v1/audio/transcriptions/stream HTTP/1.1\r\nHost: x\r\nUser-Agent: stays\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, BINARY, CLOSE, CONTINUATION = 1, 2, 8, 0


def frame(opcode, payload, *, last=True):
    """One frame of a client, masked by zeros."""
    size = struct.pack(">BH", 0xFE, len(payload)) if len(payload) > 125 else bytes([0x80 | len(payload)])
    return bytes([opcode | (0x80 if last else 0)]) + size + bytes(4) + payload


async def refuse(stream):
    await stream.fail(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "no key")


async def refused_reader(port, stack):
    """Connects a client that is refused and does not answer the close. Returns its reader."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    writer.write(HANDSHAKE.encode())
    return reader


async def receives_error(reader):
    async with asyncio.timeout(10):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b'"type":"error"')
            return True
    return False


async def test_refused_clients_that_stay_use_no_places(start_bridge):
    bridge = await start_bridge(bridge_max_connections=3, bridge_close_seconds=10)

    async def by_name(stream):
        await (refuse if stream.metadata.get("x-user-agent") == "stays" else transcribe)(stream)

    bridge.servicer.script = by_name
    async with AsyncExitStack() as staying:
        for _ in range(10):
            readers = [await refused_reader(bridge.port, staying) for _ in range(20)]
            for reader in readers:
                await receives_error(reader)
            # Others are admitted at once, while the refused ones are still connected.
            async with bridge.connect() as client:
                assert (await client.receive())["type"] == "session.begin"


async def test_the_last_refused_clients_receive_the_error(start_bridge):
    bridge = await start_bridge(bridge_close_seconds=10)
    bridge.servicer.script = refuse
    async with AsyncExitStack() as staying:
        readers = [await refused_reader(bridge.port, staying) for _ in range(100)]
        assert all([await receives_error(reader) for reader in readers[-50:]])


@pytest.mark.parametrize("when", ["at once", "after the error", "after the close"])
@pytest.mark.parametrize(
    "junk",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xc3", last=False) + frame(CONTINUATION, b"\x28"),
        frame(TEXT, b"no json") * 3,
        frame(BINARY, bytes(65535)) * 3,
        b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4),
        frame(CLOSE, b"\x03\xe8\xff\xff"),
        frame(CLOSE, b"\x00"),
        frame(3, b"?"),
        b"\xff" * 200,
        frame(CONTINUATION, b"?"),
        frame(TEXT, b"\xff") + frame(TEXT, b"\xff") + b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4),
    ],
)
async def test_frames_of_a_refused_client_are_no_error_of_the_bridge(bridge, caplog, capfd, when, junk):
    caplog.set_level(logging.INFO)
    bridge.servicer.script = refuse
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(HANDSHAKE.encode() + (junk if when == "at once" else b""))
    async with asyncio.timeout(10):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            if when != "at once":
                await reader.readuntil(b"}")
                if when == "after the close":
                    await reader.readuntil(b"\x88")
                writer.write(junk)
            await reader.read()
    writer.close()
    await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "junk",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xff") * 2 + b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4),
        b"\x82\xff" + struct.pack(">Q", 1 << 40) + bytes(4) + frame(TEXT, b"\xff"),
        b"\xff" * 200,
        os.urandom(500),
    ],
)
async def test_frames_of_a_running_session_are_no_error_of_the_bridge(bridge, caplog, capfd, junk):
    caplog.set_level(logging.INFO)
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(HANDSHAKE.encode())
    async with asyncio.timeout(10):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"session.begin")
            writer.write(junk)
            await reader.read()
    writer.close()
    await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/audio/transcriptions/stream/"])
async def test_the_error_of_a_wrong_path_names_the_path_of_websockets(bridge, path):
    with pytest.raises((InvalidHandshake, InvalidMessage)) as caught:
        async with connect(f"ws://127.0.0.1:{bridge.port}{path}", proxy=None):
            pass
    response = caught.value.response
    assert response.status_code == 404
    body = json.loads(response.body)
    assert body["message"].startswith("there is nothing at this path")
    assert body["details"][0]["reason"] == "PATH_NOT_FOUND"
