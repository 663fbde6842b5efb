"""Slow, stuck and silent peers."""

import asyncio
import contextlib
import socket
import time

import pytest
from dalston.v1 import transcription_pb2 as pb

CHUNK = bytes(3200)
FINAL = pb.Final(text="x" * 16000)


async def flood(stream):
    """The script of a server that writes finals without end."""
    await stream.begin()
    try:
        while True:
            await stream.write(final=FINAL)
    except Exception:
        # A cancel during a write appears as a failed write.
        raise asyncio.CancelledError from None


async def settled(read, seconds=0.5):
    """The value of `read` once it has stopped growing."""
    async with asyncio.timeout(10):
        before = -1
        while (now := read()) != before:
            before = now
            await asyncio.sleep(seconds)
    return before


def small_receive_buffer():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    return sock


async def connect_slow_reader(bridge, query=""):
    sock = small_receive_buffer()
    sock.connect(("127.0.0.1", bridge.port))
    return bridge.connect(query, sock=sock, max_queue=1, close_timeout=0.2)


async def round_trip_seconds(bridge):
    """The median time of a flush on another stream."""
    times = []
    async with bridge.connect() as client:
        await client.receive()
        for _ in range(11):
            await client.socket.send(CHUNK)
            started = time.monotonic()
            await client.send(type="flush")
            assert (await client.receive())["type"] == "flushed"
            times.append(time.monotonic() - started)
    return sorted(times)[5]


async def test_a_client_that_does_not_read_is_buffered_within_bounds(bridge):
    echo, bridge.servicer.script = bridge.servicer.script, flood
    async with await connect_slow_reader(bridge) as stuck:
        stream = await bridge.servicer.stream()
        bridge.servicer.script = echo
        buffered = await settled(lambda: stream.written) * len(FINAL.text)
        assert buffered < 2_000_000
        assert await round_trip_seconds(bridge) < 0.5
        # It is slow, not lost: everything arrives as soon as it reads.
        for _ in range(100):
            await stuck.receive()
        stuck.socket.transport.abort()


async def test_a_client_that_does_not_read_for_too_long_is_dropped(start_bridge, backend):
    backend.servicer.script = flood
    bridge = await start_bridge(bridge_stuck_seconds=0.3)
    async with await connect_slow_reader(bridge) as client:
        stream = await backend.servicer.stream()
        async with asyncio.timeout(10):
            await stream.ended.wait()
        assert stream.cancelled
        client.socket.transport.abort()


async def test_backpressure_of_the_server_slows_only_its_client(bridge):
    release = asyncio.Event()

    async def busy(stream):
        await stream.begin()
        await release.wait()
        while request := await stream.read():
            if request.control.HasField("end"):
                await stream.write(session_end=pb.SessionEnd())
                return

    echo, bridge.servicer.script = bridge.servicer.script, busy
    async with bridge.connect() as client:
        await client.receive()
        bridge.servicer.script = echo
        sent = 0

        async def send():
            nonlocal sent
            while sent < 2000:
                await client.socket.send(bytes(60000))
                sent += 1
            await client.send(type="end")

        sending = asyncio.create_task(send())
        held_back_at = await settled(lambda: sent)
        assert held_back_at < 400
        assert await round_trip_seconds(bridge) < 0.5
        release.set()
        messages, code = await client.rest()
        await sending
    assert [message["type"] for message in messages] == ["session.end"]
    assert code == 1000
    assert len(bridge.servicer.streams[0].audio) == 2000 * 60000


async def test_a_server_that_reads_nothing_for_too_long_is_unavailable(start_bridge, backend):
    async def busy(stream):
        await stream.begin()
        await asyncio.Event().wait()

    backend.servicer.script = busy
    bridge = await start_bridge(bridge_stall_seconds=0.3)
    async with bridge.connect() as client:
        await client.receive()

        async def send():
            while True:
                await client.socket.send(bytes(60000))

        sending = asyncio.create_task(send())
        messages, code = await client.rest()
        await asyncio.wait([sending])
        sending.exception()
    assert ([message["code"] for message in messages], code) == (["unavailable"], 4503)


@pytest.mark.parametrize(("query", "is_dropped"), [("", True), ("store_audio=true", False)])
async def test_audio_queued_at_a_disconnect_is_relayed_only_to_be_stored(start_bridge, backend, query, is_dropped):
    goes_on = asyncio.Event()

    async def busy(stream):
        await stream.begin()
        await goes_on.wait()
        while await stream.read():
            pass

    backend.servicer.script = busy
    bridge = await start_bridge(
        bridge_settle_seconds=0.3, bridge_ping_interval_seconds=0.1, bridge_ping_timeout_seconds=0.1
    )
    async with bridge.connect(query) as client:
        await client.receive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await client.socket.send(bytes(60000))
        client.socket.transport.abort()
    stream = await backend.servicer.stream()
    if is_dropped:
        async with asyncio.timeout(5):
            await stream.ended.wait()
        assert stream.cancelled
        return
    await asyncio.sleep(1)
    assert not stream.ended.is_set()
    goes_on.set()
    async with asyncio.timeout(5):
        await stream.ended.wait()
    # The buffers on the path hold more than one message.
    assert len(stream.audio) > 60000


class RawClient:
    """A client that answers nothing after its handshake, not even pings."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def send_audio(self, audio: bytes) -> None:
        self.writer.write(bytes([0x82, 0x80 | len(audio)]) + bytes(4) + audio)
        await self.writer.drain()

    async def read_to_end(self) -> bytes:
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


async def raw_client(bridge) -> RawClient:
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(
        b"GET /v1/audio/transcriptions/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    return RawClient(reader, writer)


async def test_a_client_without_pongs_and_frames_is_dropped(start_bridge, backend):
    bridge = await start_bridge(bridge_ping_interval_seconds=0.1, bridge_ping_timeout_seconds=0.2)
    client = await raw_client(bridge)
    stream = await backend.servicer.stream()
    async with asyncio.timeout(5):
        await client.read_to_end()
        await stream.ended.wait()
    assert stream.cancelled
    client.writer.close()


async def test_a_client_that_sends_audio_needs_no_pong(start_bridge, backend):
    bridge = await start_bridge(bridge_ping_interval_seconds=0.1, bridge_ping_timeout_seconds=0.2)
    client = await raw_client(bridge)
    for _ in range(12):
        await client.send_audio(b"\x01\x02")
        await asyncio.sleep(0.08)
    stream = await backend.servicer.stream()
    assert len(stream.audio) == 24
    assert not stream.ended.is_set()
    client.writer.close()
    await stream.ended.wait()


async def test_a_client_that_answers_pings_may_send_nothing(start_bridge, backend):
    bridge = await start_bridge(bridge_ping_interval_seconds=0.1, bridge_ping_timeout_seconds=0.1)
    async with bridge.connect(ping_interval=None) as client:
        await client.receive()
        await asyncio.sleep(0.8)
        await client.send(type="end")
        _, code = await client.rest()
    assert code == 1000


async def test_a_client_that_does_not_answer_the_close_is_dropped(start_bridge, backend):
    async def done(stream):
        await stream.begin()
        await stream.write(session_end=pb.SessionEnd())

    backend.servicer.script = done
    bridge = await start_bridge(bridge_close_seconds=0.3)
    client = await raw_client(bridge)
    async with asyncio.timeout(5):
        assert b"session.end" in await client.read_to_end()
    client.writer.close()
