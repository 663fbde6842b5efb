import asyncio
import struct

import grpc
import pytest
from dalston.v1 import transcription_pb2 as pb
from websockets.exceptions import ConnectionClosed

CHUNK = bytes(3200)


async def test_a_session_from_begin_to_end(bridge):
    async with bridge.connect("language=en&sample_rate=16000&store_audio=true&token=k") as client:
        begin = await client.receive()
        assert begin["type"] == "session.begin"
        assert begin["session_id"] == "sess_0"
        for _ in range(10):
            await client.socket.send(CHUNK)
        await client.send(type="flush")
        assert await client.receive() == {"type": "flushed", "timestamp": 1.0}
        await client.send(type="config", language="es")
        assert (await client.receive())["text"] == "es"
        await client.send(type="keepalive")
        await client.socket.send(b"")
        await client.send(type="end")
        messages, code = await client.rest()
    assert [message["type"] for message in messages] == ["session.end"]
    assert code == 1000
    stream = await bridge.servicer.stream()
    assert stream.config == pb.TranscribeConfig(language="en", sample_rate=16000, store_audio=True)
    assert stream.metadata["authorization"] == "Bearer k"
    assert stream.metadata["x-forwarded-for"] == "127.0.0.1"
    assert stream.metadata["x-user-agent"].startswith("Python/")
    assert stream.audio == CHUNK * 10
    assert not stream.cancelled
    kinds = [request.control.WhichOneof("control") for request in stream.received if request.HasField("control")]
    assert kinds == ["flush", "set_language", "keep_alive", "end"]


async def test_the_client_address_comes_from_the_proxy_header(bridge):
    async with bridge.connect(additional_headers={"X-Forwarded-For": "203.0.113.7"}) as client:
        await client.receive()
    assert (await bridge.servicer.stream()).metadata["x-forwarded-for"] == "203.0.113.7"


async def test_audio_sent_before_session_begin_waits_and_is_not_lost(bridge):
    go = asyncio.Event()

    async def late(stream):
        await go.wait()
        await script(stream)

    script, bridge.servicer.script = bridge.servicer.script, late
    async with bridge.connect() as client:
        for _ in range(40):
            await client.socket.send(CHUNK)
        await client.send(type="end")
        await asyncio.sleep(0.1)
        stream = await bridge.servicer.stream()
        assert stream.received == []
        go.set()
        messages, code = await client.rest()
    assert [message["type"] for message in messages] == ["session.begin", "session.end"]
    assert code == 1000
    assert stream.audio == CHUNK * 40


async def test_a_server_that_does_not_begin_is_unavailable(start_bridge, backend):
    async def silent(_stream):
        await asyncio.Event().wait()

    backend.servicer.script = silent
    bridge = await start_bridge(bridge_begin_seconds=0.2)
    async with bridge.connect() as client:
        messages, code = await client.rest()
    assert (messages[0]["code"], messages[0]["recoverable"], code) == ("unavailable", True, 4503)
    await (await backend.servicer.stream()).ended.wait()


async def test_frames_after_the_end_are_ignored(bridge):
    async def slow(stream):
        await stream.begin()
        await stream.read()
        await asyncio.sleep(0.1)
        await stream.write(session_end=pb.SessionEnd())
        await stream.read()

    bridge.servicer.script = slow
    async with bridge.connect() as client:
        await client.receive()
        await client.send(type="end")
        await client.socket.send("nonsense")
        await client.socket.send(CHUNK)
        messages, code = await client.rest()
    assert [message["type"] for message in messages] == ["session.end"]
    assert code == 1000
    assert len((await bridge.servicer.stream()).received) == 2


async def wait_ended(stream):
    async with asyncio.timeout(5):
        await stream.ended.wait()


@pytest.mark.parametrize("manner", ["close", "abort"])
async def test_a_disconnect_without_an_end_cancels_the_stream(bridge, manner):
    async with bridge.connect() as client:
        await client.receive()
        await client.socket.send(CHUNK)
        if manner == "abort":
            client.socket.transport.abort()
        else:
            await client.socket.close()
        stream = await bridge.servicer.stream()
        await wait_ended(stream)
    assert stream.cancelled
    assert not any(request.control.HasField("end") for request in stream.received)


async def test_a_disconnect_before_session_begin_cancels_the_stream(bridge):
    async def silent(_stream):
        await asyncio.Event().wait()

    bridge.servicer.script = silent
    async with bridge.connect():
        stream = await bridge.servicer.stream()
    await wait_ended(stream)
    assert stream.cancelled


async def test_a_session_completes_after_an_end_and_a_disconnect(bridge):
    finished = asyncio.Event()

    async def slow(stream):
        await stream.begin()
        while (await stream.read()) and not stream.received[-1].control.HasField("end"):
            pass
        for _ in range(5):
            await asyncio.sleep(0.05)
            await stream.write(final=pb.Final(text="late"))
        await stream.write(session_end=pb.SessionEnd())
        finished.set()

    bridge.servicer.script = slow
    async with bridge.connect() as client:
        await client.receive()
        await client.socket.send(CHUNK)
        await client.send(type="end")
    async with asyncio.timeout(5):
        await finished.wait()
    stream = await bridge.servicer.stream()
    await wait_ended(stream)
    assert stream.audio == CHUNK
    assert not stream.cancelled


async def test_a_server_that_dies_in_mid_stream_is_unavailable(bridge):
    async with bridge.connect() as client:
        await client.receive()
        await bridge.backend.stop()
        messages, code = await client.rest()
    assert (messages[0]["type"], messages[0]["code"], messages[0]["recoverable"]) == ("error", "unavailable", True)
    assert code == 4503


async def test_a_restarted_server_is_used_again(bridge):
    await bridge.backend.stop()
    async with bridge.connect() as client:
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("unavailable", 4503)
    await bridge.backend.start()
    async with asyncio.timeout(5):
        while True:
            async with bridge.connect() as client:
                if (await client.receive())["type"] == "session.begin":
                    break
            await asyncio.sleep(0.1)


async def test_a_draining_server_keeps_its_streams_and_gets_no_others(bridge):
    async with bridge.connect() as client:
        await client.receive()
        await bridge.backend.drain()
        await asyncio.sleep(0.5)  # for the health status to arrive
        async with bridge.connect() as latecomer:
            messages, code = await latecomer.rest()
        assert (messages[0]["code"], messages[0]["recoverable"], code) == ("unavailable", True, 4503)
        await client.send(type="flush")
        assert (await client.receive())["type"] == "flushed"


async def test_a_client_is_notified_of_a_drain_and_then_closed(bridge):
    async def drain(stream):
        await stream.begin()
        await stream.write(
            session_terminating=pb.SessionTerminating(reason="shutdown", grace_seconds=30, resume_session_id="sess_0")
        )
        await stream.write(audio_ack=pb.AudioAck(received_seconds=2, processed_seconds=1.5, stored_seconds=1))
        await stream.write(warning=pb.Warning(code="persistence_degraded", message="S3 does not answer"))
        await stream.fail(grpc.StatusCode.UNAVAILABLE, "SERVER_SHUTDOWN", "resume")

    bridge.servicer.script = drain
    async with bridge.connect("acks=true") as client:
        messages, code = await client.rest()
    assert messages[1:] == [
        {"type": "session.terminating", "reason": "shutdown", "resume_session_id": "sess_0", "grace_seconds": 30.0},
        {"type": "audio.ack", "received_seconds": 2.0, "processed_seconds": 1.5, "stored_seconds": 1.0},
        {"type": "warning", "code": "persistence_degraded", "message": "S3 does not answer"},
        {"type": "error", "code": "server_shutdown", "message": "resume", "recoverable": True},
    ]
    assert code == 1012


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_AUDIO", 4400),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MODEL", 4400),
        (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", 4400),
        (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_BIG", 1009),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", 4001),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", 4003),
        (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", 4404),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "IDLE_TIMEOUT", 4408),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", 4429),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY", 4503),
        (grpc.StatusCode.UNAVAILABLE, "SERVER_SHUTDOWN", 1012),
        (grpc.StatusCode.INTERNAL, "INTERNAL", 1011),
    ],
)
async def test_a_refusal_of_the_server_reaches_the_client(bridge, status, reason, code):
    async def refuse(stream):
        await stream.fail(status, reason, "this is why")

    bridge.servicer.script = refuse
    async with bridge.connect() as client:
        messages, close_code = await client.rest()
        assert client.socket.close_reason == reason.lower()
    assert close_code == code
    assert len(messages) == 1
    assert messages[0]["type"] == "error"
    assert messages[0]["code"] == reason.lower()
    assert messages[0]["message"] == "this is why"


async def test_a_refusal_in_mid_stream_reaches_a_client_that_does_not_read(bridge):
    async def refuse(stream):
        await stream.begin()
        await stream.read()
        await stream.fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_AUDIO", "odd")

    bridge.servicer.script = refuse
    async with bridge.connect() as client:
        with pytest.raises(ConnectionClosed):
            while True:
                await client.socket.send(bytes(60000))
        messages, code = await client.rest()
    assert [message["type"] for message in messages] == ["session.begin", "error"]
    assert code == 4400


async def test_a_stream_that_ends_without_session_end_is_a_bug(bridge):
    async def short(stream):
        await stream.begin()

    bridge.servicer.script = short
    async with bridge.connect() as client:
        messages, code = await client.rest()
    assert (messages[-1]["code"], code) == ("internal", 1011)


async def test_the_text_of_a_grpc_failure_is_not_sent(bridge):
    async def broken(_stream):
        raise ValueError("secret")

    bridge.servicer.script = broken
    async with bridge.connect() as client:
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("internal", 1011)
    assert "secret" not in messages[0]["message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("speed=2", 'unknown parameter "speed"'),
        ("sample_rate=fast", "whole number"),
        ("vocabulary=" + "x" * 20000, "JSON array"),
    ],
)
async def test_the_refusal_of_parameters_names_the_mistake(bridge, query, words):
    async with bridge.connect(query) as client:
        messages, code = await client.rest()
    assert code == 4400
    assert messages[0]["code"] == "invalid_parameters"
    assert words in messages[0]["message"]
    assert bridge.servicer.streams == []


async def test_two_different_keys_are_refused(bridge):
    async with bridge.connect("token=a", additional_headers={"Authorization": "Bearer b"}) as client:
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("unauthenticated", 4001)


@pytest.mark.parametrize(
    ("frame", "error", "code"),
    [
        ("no json", "invalid_message", 4400),
        ('{"type":"stop"}', "invalid_message", 4400),
        ('{"type":"end","x":1}', "invalid_message", 4400),
        (bytes(65537), "message_too_big", 1009),
        ("x" * 65537, "message_too_big", 1009),
    ],
)
async def test_an_invalid_frame_is_refused_and_fails_the_servers_stream(bridge, frame, error, code):
    async with bridge.connect() as client:
        await client.receive()
        await client.socket.send(CHUNK)
        await client.send(type="flush")
        await client.receive()
        await client.socket.send(frame)
        messages, close_code = await client.rest()
    assert close_code == code
    assert [message["code"] for message in messages] == [error]
    stream = await bridge.servicer.stream()
    await wait_ended(stream)
    assert stream.received[-1] == pb.TranscribeRequest()
    assert not stream.cancelled


async def test_text_that_is_not_utf8_is_refused(bridge):
    async with bridge.connect() as client:
        await client.receive()
        await client.socket.send(b"\xff", text=True)
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("invalid_message", 4400)


async def test_an_invalid_frame_before_session_begin_is_refused_at_once(bridge):
    async def silent(_stream):
        await asyncio.Event().wait()

    bridge.servicer.script = silent
    async with bridge.connect() as client:
        await client.socket.send("no json")
        messages, code = await client.rest()
    assert (messages[0]["code"], code) == ("invalid_message", 4400)


async def test_a_message_in_fragments_is_one_message(bridge):
    async with bridge.connect() as client:
        await client.receive()
        await client.socket.send([CHUNK, CHUNK, b"\x01\x02"])
        await client.send(type="end")
        await client.rest()
    stream = await bridge.servicer.stream()
    assert [len(request.audio) for request in stream.received if request.audio] == [6402]


async def test_a_huge_frame_is_refused_before_it_is_sent(bridge):
    async with bridge.connect() as client:
        await client.receive()
        head = struct.pack("!BBQ4x", 0x82, 0xFF, 2**40)
        client.socket.transport.write(head + bytes(100))
        messages, code = await client.rest()
    assert ([message["code"] for message in messages], code) == (["message_too_big"], 1009)


@pytest.mark.parametrize("pause", [0, 0.001])
async def test_a_client_that_sends_during_a_refusal_always_receives_the_reason(bridge, pause):
    async def refuse(stream):
        await stream.begin()
        for number in range(5):
            await stream.read()
            await stream.write(final=pb.Final(text=str(number)))
        await stream.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "SESSION_TIMEOUT", "long")

    bridge.servicer.script = refuse
    for _ in range(40):
        async with bridge.connect() as client:

            async def send(client=client):
                while True:
                    await client.socket.send(bytes(3200))
                    await asyncio.sleep(pause)

            sending = asyncio.create_task(send())
            messages, code = await client.rest()
            await asyncio.wait([sending])
            assert isinstance(sending.exception(), ConnectionClosed)
        assert [message["type"] for message in messages] == ["session.begin", *["transcript.final"] * 5, "error"]
        assert (messages[-1]["code"], code) == ("session_timeout", 4408)


async def test_unsupported_features_are_named_and_the_session_continues(bridge):
    async with bridge.connect("model=&retention=30&language=en") as client:
        await client.send(type="clear")
        assert (await client.receive())["type"] == "session.begin"
        warnings = [await client.receive(), await client.receive()]
        assert [(message["type"], message["code"], message["name"]) for message in warnings] == [
            ("warning", "unsupported", "retention"),
            ("warning", "unsupported", "clear"),
        ]
        await client.send(type="config", language="es", vad_threshold=0.3, min_silence_duration_ms=800)
        named = {message.get("name") or message["text"] for message in [await client.receive() for _ in range(3)]}
        assert named == {"es", "vad_threshold", "min_silence_duration_ms"}
        await client.send(type="end")
        messages, code = await client.rest()
    assert [message["type"] for message in messages] == ["session.end"]
    assert code == 1000
    stream = await bridge.servicer.stream()
    assert stream.config == pb.TranscribeConfig(language="en")
    kinds = [request.control.WhichOneof("control") for request in stream.received if request.HasField("control")]
    assert kinds == ["keep_alive", "set_language", "end"]
