"""Two throw-away protocols through the real listener and relay: the interface for protocols of other services."""

import asyncio
import base64
import gc
import json
import socket
import weakref
from contextlib import asynccontextmanager

import grpc
import pytest
from dalston.v1 import transcription_pb2 as pb
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.protocols.registry import PROTOCOLS
from bridge.relay import Relay
from tests.integration.bridge.conftest import STREAM_PATH
from tests.integration.bridge.dictation_protocol import PATH, QUERY_PATH, DictationProtocol, QueryDictationProtocol

BOTH = {**PROTOCOLS, PATH: DictationProtocol, QUERY_PATH: QueryDictationProtocol}
CHUNK = bytes(range(256)) * 40


@pytest.fixture
async def bridge(start_bridge):
    return await start_bridge(protocols=BOTH)


@asynccontextmanager
async def dictation(bridge, path=PATH, key="k"):
    url = f"ws://127.0.0.1:{bridge.port}{path}"
    subprotocols = ["dictation", key] if key else None
    async with connect(url, proxy=None, compression=None, subprotocols=subprotocols) as client:
        yield client


async def send(client, **message):
    await client.send(json.dumps(message))


async def receive(client):
    async with asyncio.timeout(10):
        return json.loads(await client.recv())


async def rest(client):
    messages = []
    try:
        while True:
            messages.append(await receive(client))
    except ConnectionClosed:
        return messages, client.close_code, client.close_reason


async def send_audio(client, audio):
    await send(client, do="audio", data=base64.b64encode(audio).decode())


async def ended(stream):
    async with asyncio.timeout(10):
        await stream.ended.wait()


async def refusal(bridge, path, **options):
    with pytest.raises(InvalidStatus) as caught:
        async with dictation(bridge, path, **options):
            pass
    return caught.value.response


async def test_a_session_configured_by_message_runs_to_its_end(bridge):
    async with dictation(bridge) as client:
        assert client.subprotocol == "dictation"
        assert client.response.headers["dictation-version"] == "1"
        assert bridge.servicer.streams == []
        await send(client, do="start", model="accurate")
        assert await receive(client) == {"started": True}
        for _ in range(10):
            await send_audio(client, CHUNK)
        await send(client, do="commit")
        answers = [await receive(client) for _ in range(3)]
        assert {"committed": True} in answers
        assert [answer for answer in answers if "text" in answer] == [{"text": "one "}, {"text": "two"}]
        await send(client, do="stop")
        assert await rest(client) == ([{"done": "sess_0"}], 1000, "bye")
    stream = await bridge.servicer.stream()
    assert stream.config == pb.TranscribeConfig(model="accurate", acks=True)
    assert stream.metadata["authorization"] == "Bearer k"
    assert stream.audio == CHUNK * 10
    assert [r.control.WhichOneof("control") for r in stream.received if r.HasField("control")] == ["flush", "end"]


async def test_the_frame_limit_is_that_of_the_protocol(bridge):
    async with dictation(bridge) as client:
        await send(client, do="start", model="fast")
        await receive(client)
        await send_audio(client, bytes(120_000))
        await send(client, do="commit")
        for _ in range(3):
            await receive(client)
        await client.send(" " * 200_001)
        assert await rest(client) == (
            [{"failed": "a message is over 200000 bytes; send audio in smaller pieces"}],
            1008,
            "message_too_big",
        )
    stream = await bridge.servicer.stream()
    await ended(stream)
    assert len(stream.audio) == 120_000


async def test_an_acknowledgement_of_the_server_is_a_tick(bridge):
    async def acknowledge(stream):
        await stream.begin()
        await stream.write(audio_ack=pb.AudioAck(processed_seconds=1.5))
        await stream.read()

    bridge.servicer.script = acknowledge
    async with dictation(bridge) as client:
        await send(client, do="start", model="fast")
        assert await receive(client) == {"started": True}
        assert await receive(client) == {"heartbeat": 1.5}


async def test_a_normal_close_of_the_client_ends_the_session(bridge):
    async with dictation(bridge) as client:
        await send(client, do="start", model="fast")
        await receive(client)
        await send_audio(client, CHUNK)
        await send(client, do="commit")
        for _ in range(3):
            await receive(client)
        await client.close(1000)
    stream = await bridge.servicer.stream()
    await ended(stream)
    assert stream.received[-1].control.HasField("end")
    assert not stream.cancelled


async def test_a_lost_connection_does_not_end_the_session(bridge):
    async with dictation(bridge) as client:
        await send(client, do="start", model="fast")
        await receive(client)
        await send(client, do="commit")
        for _ in range(3):
            await receive(client)
        client.transport.abort()
        stream = await bridge.servicer.stream()
        await ended(stream)
    assert stream.cancelled


@pytest.mark.parametrize(
    ("message", "words", "reason"),
    [
        ({"do": "audio", "data": "?"}, "data is not base64", "invalid_audio"),
        ({"do": "sing"}, "do one of start, audio, commit, stop", "invalid_message"),
    ],
)
async def test_an_invalid_frame_gets_the_error_and_the_code_of_the_protocol(bridge, message, words, reason):
    async with dictation(bridge) as client:
        await send(client, do="start", model="fast")
        await receive(client)
        await send(client, do="commit")
        for _ in range(3):
            await receive(client)
        await send(client, **message)
        assert await rest(client) == ([{"failed": words}], 1008, reason)
    stream = await bridge.servicer.stream()
    await ended(stream)
    assert not stream.received[-1].WhichOneof("request")  # So the server records an error, not a disconnect.


async def test_audio_before_the_configuration_is_an_error_of_the_bridge(bridge):
    async with dictation(bridge) as client:
        await send_audio(client, CHUNK)
        messages, code, reason = await rest(client)
    assert messages[0]["failed"].startswith("internal error ")
    assert (code, reason) == (1008, "internal")
    assert bridge.servicer.streams == []


async def test_a_client_that_configures_nothing_is_closed_in_time(start_bridge):
    bridge = await start_bridge(protocols=BOTH, bridge_configure_seconds=0.2)
    async with dictation(bridge) as client:
        messages, code, reason = await rest(client)
    assert (messages, code, reason) == ([{"failed": "the session was not configured in time"}], 1008, "idle_timeout")
    assert bridge.servicer.streams == []


@pytest.mark.parametrize("path", [PATH, QUERY_PATH])
async def test_a_client_without_a_key_is_refused_at_the_handshake(bridge, path):
    response = await refusal(bridge, path, key=None)
    assert (response.status_code, response.headers["dictation-error"]) == (401, "unauthenticated")
    assert response.body == b"a key is needed"
    assert bridge.servicer.streams == []


@pytest.mark.parametrize("path", [PATH, f"{QUERY_PATH}?model=fast"])
async def test_a_full_bridge_refuses_at_the_handshake(start_bridge, path):
    bridge = await start_bridge(protocols=BOTH, bridge_max_connections=1)
    async with dictation(bridge, path) as client:
        response = await refusal(bridge, path)
        assert (response.status_code, response.headers["dictation-error"]) == (503, "no_capacity")
        await client.close()


async def test_a_session_that_begins_in_the_handshake_needs_no_configuration(bridge):
    async with dictation(bridge, f"{QUERY_PATH}?model=accurate") as client:
        stream = await bridge.servicer.stream()
        assert stream.config == pb.TranscribeConfig(model="accurate")
        await send_audio(client, CHUNK)
        await send(client, do="stop")
        assert await rest(client) == ([{"done": "sess_0"}], 1000, "bye")
    assert stream.audio == CHUNK


async def test_the_servers_refusal_is_the_response_to_the_handshake(bridge):
    async def refuse(stream):
        await stream.fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MODEL", "no model is named x")

    bridge.servicer.script = refuse
    for _ in range(3):
        response = await refusal(bridge, f"{QUERY_PATH}?model=x")
        assert (response.status_code, response.body) == (404, b"no model is named x")


async def test_a_disconnect_during_the_handshake_frees_the_place_and_the_stream(start_bridge):
    bridge = await start_bridge(protocols=BOTH, bridge_max_connections=1)
    go = asyncio.Event()

    async def slow(stream):
        await go.wait()
        await script(stream)

    script, bridge.servicer.script = bridge.servicer.script, slow
    connecting = asyncio.create_task(refusal(bridge, f"{QUERY_PATH}?model=fast"))
    stream = await bridge.servicer.stream()
    connecting.cancel()
    await asyncio.wait({connecting})
    go.set()
    await ended(stream)
    assert stream.cancelled
    async with asyncio.timeout(10):
        while True:
            try:
                async with dictation(bridge, f"{QUERY_PATH}?model=fast"):
                    break
            except InvalidStatus:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", [PATH, f"{QUERY_PATH}?model=fast", STREAM_PATH])
@pytest.mark.parametrize("is_early", [True, False])
async def test_connections_lost_in_the_handshake_leave_nothing_behind(start_bridge, monkeypatch, path, is_early):
    relays = weakref.WeakSet()

    class CountedRelay(Relay):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            relays.add(self)

    async def answer_late(*_):
        await asyncio.sleep(0.2)  # The connection is lost before the handshake goes any further.

    monkeypatch.setattr("bridge.listener.Relay", CountedRelay)
    if is_early:
        monkeypatch.setattr("bridge.listener.Readiness.answer", answer_late)
    bridge = await start_bridge(protocols=BOTH, bridge_max_connections=1)
    before = REGISTRY.get_sample_value("dalston_bridge_open_connections")
    head = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: dictation, k\r\n\r\n"
    )
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", bridge.port)) as client:
            client.sendall(head.encode())
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while True:
            gc.collect()
            if not relays and REGISTRY.get_sample_value("dalston_bridge_open_connections") == before:
                break
            await asyncio.sleep(0.05)


async def test_the_handshake_ends_in_time_where_the_server_does_not_begin(start_bridge):
    async def silent(_stream):
        await asyncio.Event().wait()

    bridge = await start_bridge(protocols=BOTH, bridge_begin_seconds=0.2)
    bridge.servicer.script = silent
    response = await refusal(bridge, f"{QUERY_PATH}?model=fast")
    assert (response.status_code, response.headers["dictation-error"]) == (503, "unavailable")
    await ended(await bridge.servicer.stream())


async def test_the_native_protocol_is_served_beside_it(bridge):
    async with bridge.connect("language=en") as client:
        assert (await client.receive())["type"] == "session.begin"
        await client.socket.send("{")
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("invalid_message", 4400)
