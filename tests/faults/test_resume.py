"""P9: a session continues another whose connection, server or machine is gone; the two are one recording."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge.config import BridgeSettings
from bridge.listener import open_listener
from bridge.protocols.native.protocol import PATH as STREAM_PATH
from edge.channel import open_channel
from tests.faults.client import PatternClient
from tests.faults.fault_server import CYCLE_BYTES
from tests.faults.figures import FIGURES
from tests.faults.pattern import BYTES_PER_SECOND, audio, disagreement
from tests.faults.proxy import Proxy
from tests.faults.scenario import PREFIX, Scenario, read_wav
from tests.faults.servers import ServerProcess, a_server
from tests.guides import resumed, resuming_parameters

_TAG = 9
_HALF_SECOND = 16_000
# What the scripted detector takes for a pause, and no more, may be missing between two finals.
_PAUSE_BYTES = 6_000
# Speech shorter than 0.25 s when its client ended the session was noise, and so is the margin of 0.2 s before it.
_NOISE_BYTES = 8_000 + 6_400
# What a client keeps beside what is neither stored nor recognised: the longest utterance fits in.
_SLACK_BYTES = 30 * BYTES_PER_SECOND


@asynccontextmanager
async def a_client(
    server: ServerProcess, previous: PatternClient | None = None, *, port: int | None = None, **config: Any
) -> AsyncIterator[PatternClient]:
    """A stream that has begun, perhaps as the continuation of another."""
    client = PatternClient(server.channel(port), tag=_TAG)
    try:
        if previous is None:
            await client.begin(**config)
        else:
            await client.resume(previous, **config)
            assert_is_kept(previous, client)
        yield client
    finally:
        await client.close()


def _bytes(seconds: float) -> int:
    return round(seconds * BYTES_PER_SECOND)


async def speak(client: PatternClient, size: int = 3 * CYCLE_BYTES + _HALF_SECOND) -> None:
    """Sends so much, ending in mid-utterance, and waits until all of it but that utterance has come back."""
    await client.send(size)
    await client.until_received(client.sent)


async def the_rest(server: ServerProcess, previous: PatternClient, size: int = 2 * CYCLE_BYTES) -> PatternClient:
    """Continues a session and ends it."""
    async with a_client(server, previous) as client:
        await speak(client, size)
        await client.finish()
        return client


def assert_is_kept(previous: PatternClient, client: PatternClient) -> None:
    """Checks that the point is not before the audio that a client keeps by the acknowledgements."""
    assert client.begun is not None
    point = _bytes(client.begun.resume_from_seconds)
    kept_from = min(previous.stored, previous.processed) - _SLACK_BYTES
    assert kept_from <= point <= previous.sent
    FIGURES.add("sessions resumed")
    FIGURES.add("bytes sent again", previous.sent - point)


async def compare(scenario: Scenario, *sessions: PatternClient) -> None:
    """Checks that the recordings, each cut where the next begins, are the audio that was sent, and its finals."""
    data, finals, base = b"", [], 0
    ended_well: set[int] = set()
    for session in sessions:
        row = await scenario.row(session.session_id)
        base += _bytes(row["resume_from_seconds"] or 0.0)
        finals = [each for each in finals if each[0] < base]
        assert base <= len(data), f"{base - len(data)} bytes are missing before {session.session_id}"
        recording = await scenario.object(f"{PREFIX}{session.session_id}/audio.wav")
        transcript = await scenario.object(f"{PREFIX}{session.session_id}/transcript.json")
        assert recording is not None
        assert transcript is not None
        data = data[:base] + read_wav(recording)
        if row["status"] == "completed":
            ended_well.add(len(data))
        finals += [
            (base + _bytes(u["start"]), base + _bytes(u["end"]), u["text"])
            for u in json.loads(transcript)["utterances"]
        ]
    FIGURES.add("bytes compared", len(data))
    assert disagreement(_TAG, data) is None
    assert len(data) == base + sessions[-1].sent
    assert finals[0][0] == 0
    for start, end, text in finals:
        assert text == f"tag {_TAG} bytes {start} to {end}"
    for (_, end, _), (start, _, _) in pairwise(finals):
        assert end <= start, "speech is in two finals"
        noise = _NOISE_BYTES if any(end <= place <= start for place in ended_well) else 0
        assert start - end <= _PAUSE_BYTES + noise, "speech is in no final"


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    status = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])  # type: ignore[arg-type]
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, dict(info.metadata)


async def refusal(server: ServerProcess, **config: Any) -> tuple[str, dict[str, str]]:
    """The error with which a stream is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with a_client(server, **config):
            pass
    return reason_of(raised.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "way",
    [pytest.param("cancelled", marks=pytest.mark.long), pytest.param("reset", marks=pytest.mark.long), "cable pulled"],
)
async def test_a_client_that_lost_its_connection_continues_in_mid_utterance(scenario: Scenario, way: str) -> None:
    spool = scenario.new_spool()
    async with (
        a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
        Proxy("127.0.0.1", server.port) as proxy,
        a_client(server, port=proxy.port) as lost,
    ):
        await speak(lost)
        {"cancelled": lost.vanish, "reset": proxy.cut, "cable pulled": proxy.stall}[way]()
        began = asyncio.get_running_loop().time()
        last = await the_rest(server, lost)
        FIGURES.note(f"{way}: resumed and ended after {asyncio.get_running_loop().time() - began:.1f} s")
        await scenario.settled()
        # The utterance that was cut is sent again, whole.
        assert last.first_byte == 3 * CYCLE_BYTES - 6_400
        await compare(scenario, lost, last)
        assert (await scenario.row(lost.session_id))["status"] == "interrupted"
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_killed_server_is_resumed_on_the_disk_it_left(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool)
    async with a_server(environment, scenario.folder / "server.log") as server, a_client(server) as lost:
        await lost.send(5 * CYCLE_BYTES + _HALF_SECOND)
        await asyncio.sleep(random.uniform(0.0, 4.0))
        await server.kill()
    async with a_server(environment, scenario.folder / "server.log") as server:
        last = await the_rest(server, lost)
        await scenario.settled()
        await compare(scenario, lost, last)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.timeout(120)
async def test_a_session_of_a_lost_server_resumes_where_its_stored_audio_ends(scenario: Scenario) -> None:
    lost_spool, spool = scenario.new_spool(), scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "other.log") as other:
        async with (
            a_server(scenario.environment(lost_spool), scenario.folder / "server.log") as server,
            a_client(server) as lost,
        ):
            await lost.stream(random.uniform(2.5, 8.0))
            await server.kill()
        shutil.rmtree(lost_spool)
        last = await the_rest(other, lost)
        await scenario.settled()
        await compare(scenario, lost, last)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_server_that_comes_back_with_more_does_no_harm(scenario: Scenario) -> None:
    """Its session was continued elsewhere from what the bucket had; the rest that it stores is overridden."""
    mine, spool = scenario.new_spool(), scenario.new_spool()
    environment = scenario.environment(mine, flush_seconds=3)
    async with a_server(scenario.environment(spool, recovery_grace_seconds=60), scenario.folder / "other.log") as other:
        async with a_server(environment, scenario.folder / "server.log") as server, a_client(server) as lost:
            await lost.stream(5.0)
            await lost.flush()
            received = lost.received
            await server.kill()
        last = await the_rest(other, lost)
        assert last.first_byte < received
        async with a_server(environment, scenario.folder / "server.log"):
            await scenario.settled()
            assert (await scenario.row(lost.session_id))["stored_bytes"] >= received
            await compare(scenario, lost, last)
            await scenario.until_nothing_is_left(mine, spool)


@pytest.mark.timeout(120)
async def test_one_of_two_resumes_of_a_session_wins_and_is_named(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        async with a_client(server) as lost:
            await speak(lost)
        outcomes = await asyncio.gather(*(the_rest(server, lost) for _ in range(5)), return_exceptions=True)
        winners = [each for each in outcomes if isinstance(each, PatternClient)]
        assert len(winners) == 1, outcomes
        for each in outcomes:
            if not isinstance(each, PatternClient):
                assert isinstance(each, grpc.aio.AioRpcError)
                assert reason_of(each) == ("SESSION_RESUMED", {"resumed_by": winners[0].session_id})
        await scenario.settled()
        await compare(scenario, lost, *winners)
        assert await refusal(server, resume_session_id=lost.session_id) == (
            "SESSION_RESUMED",
            {"resumed_by": winners[0].session_id},
        )
        await scenario.until_nothing_is_left(spool)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", [pytest.param("cancelled", marks=pytest.mark.long), "cable pulled"])
async def test_a_continuation_that_received_nothing_is_no_obstacle(scenario: Scenario, way: str) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        async with a_client(server) as lost:
            await speak(lost)
        async with (
            Proxy("127.0.0.1", server.port) as proxy,
            a_client(server, lost, port=proxy.port) as unheard,
        ):
            {"cancelled": unheard.vanish, "cable pulled": proxy.stall}[way]()
            last = await the_rest(server, lost)
            await scenario.settled()
        assert (await scenario.row(unheard.session_id))["previous_session_id"] is None
        await compare(scenario, lost, last)
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_running_session_is_not_taken_from_its_client(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool, resume_wait_seconds=3)
    async with a_server(environment, scenario.folder / "server.log") as server, a_client(server) as living:
        streaming = asyncio.create_task(living.stream(5))
        assert await refusal(server, resume_session_id=living.session_id) == ("SESSION_ACTIVE", {})
        await streaming
        await living.finish()
        assert living.reason == "OK"


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_mismatched_resume_is_refused_with_a_reason(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        async with a_client(server) as first:
            await speak(first, 3 * CYCLE_BYTES)
            await first.finish()
        await scenario.settled()
        resume = {"resume_session_id": first.session_id}
        unknown = first.session_id[:-4] + "0000"
        for config, reason in (
            ({"resume_session_id": unknown}, ("SESSION_NOT_FOUND", {})),
            ({"resume_session_id": "7"}, ("INVALID_PARAMETERS", {"parameter": "resume_session_id"})),
            (resume | {"sample_rate": 8000}, ("INVALID_PARAMETERS", {"parameter": "sample_rate"})),
            (resume | {"channels": 2}, ("INVALID_PARAMETERS", {"parameter": "channels"})),
            (resume | {"encoding": "mulaw"}, ("INVALID_PARAMETERS", {"parameter": "encoding"})),
            (resume | {"resume_from_seconds": 4.9}, ("INVALID_PARAMETERS", {"parameter": "resume_from_seconds"})),
            (resume | {"resume_from_seconds": -0.1}, ("INVALID_PARAMETERS", {"parameter": "resume_from_seconds"})),
        ):
            assert await refusal(server, **config) == reason
        async with scenario.postgres() as connection:
            other = await connection.fetchval(
                "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'other') RETURNING id"
            )
            await connection.execute("UPDATE realtime_sessions SET tenant_id = $1", other)
            assert await refusal(server, **resume) == ("SESSION_NOT_FOUND", {})
            await connection.execute(
                "UPDATE realtime_sessions SET deleted_at = now(), "
                "tenant_id = (SELECT id FROM tenants WHERE name = 'default')"
            )
            assert await refusal(server, **resume) == ("SESSION_NOT_FOUND", {})


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_completed_session_resumes_at_its_end_or_at_the_requested_point(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    async with a_server(scenario.environment(spool), scenario.folder / "server.log") as server:
        async with a_client(server) as first:
            await speak(first)
            await first.finish()
        last = await the_rest(server, first)
        assert last.first_byte == first.sent
        async with a_client(server, last, resume_from_seconds=1.0) as third:
            assert third.begun is not None
            assert (third.begun.resumed_from, third.begun.resume_from_seconds) == (last.session_id, 1.0)
            await speak(third)
            await third.finish()
        await scenario.until_nothing_is_left(spool)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_chains_of_sessions_are_what_was_spoken(scenario: Scenario, full: bool) -> None:
    spool = scenario.new_spool()
    environment = scenario.environment(spool)
    for _ in range(10 if full else 1):
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(a_server(environment, scenario.folder / "server.log"))
            chain: list[PatternClient] = []
            for _ in range(4):
                proxy = await stack.enter_async_context(Proxy("127.0.0.1", server.port))
                client = await _next(stack, server, chain, proxy.port)
                await client.stream(random.uniform(0.2, 5.0))
                how = random.choice([proxy.cut, proxy.stall, client.vanish, client.write_end, None])
                if how is None:
                    await server.kill()
                    server = await stack.enter_async_context(a_server(environment, scenario.folder / "server.log"))
                elif asyncio.iscoroutine(ended := how()):
                    await ended
            client = await _next(stack, server, chain, server.port)
            await client.stream(2.0)
            await client.finish()
            await scenario.settled()
            await compare(scenario, *chain)
            FIGURES.add("chains compared")
    await scenario.until_nothing_is_left(spool)


async def _next(stack: AsyncExitStack, server: ServerProcess, chain: list[PatternClient], port: int) -> PatternClient:
    """The next session of a chain, at a speed of its own."""
    client = await stack.enter_async_context(a_client(server, chain[-1] if chain else None, port=port))
    client.speed = random.choice([1.0, 3.0, 20.0])
    chain.append(client)
    return client


@dataclass
class _GuideClient:
    """A browser client as docs/websocket.md describes it: it runs the lines of the guide."""

    url: str
    session_id: str = ""
    finals: list[dict[str, Any]] = field(default_factory=list)
    ack: dict[str, Any] = field(default_factory=dict)
    kept: bytes = b""
    """All audio of the session."""
    base: int = 0
    """Where in the source the session begins."""
    committed: list[tuple[int, int]] = field(default_factory=list)
    """What the finals of the sessions before say which bytes they are about."""

    _names = {"rate": 16_000, "frame_bytes": 2, "kept_from": 0}  # noqa: RUF012 - read only

    async def connect(self) -> ClientConnection:
        """Opens a session, which continues where the one before broke."""
        parameters = {"store_audio": "true", "store_transcript": "true", "acks": "true", "enable_vad": "false"}
        if self.session_id:
            names = {"session_id": self.session_id, "finals": self.finals, "ack": self.ack, "store_audio": True}
            parameters |= await resuming_parameters(**names, **self._names)
        while True:
            socket = await connect(
                f"{self.url}?{urlencode(parameters)}", proxy=None, compression=None, ping_interval=None, close_timeout=0
            )
            if await self._begun(socket):
                return socket
            await asyncio.sleep(0.2)  # the session that broke is not over yet

    async def _begun(self, socket: ClientConnection) -> bool:
        try:
            if not self.session_id:
                self.session_id = json.loads(await socket.recv())["session_id"]
                return True
            left = await resumed(socket=socket, kept=self.kept, finals=self.finals, **self._names)
        except (ConnectionClosed, KeyError):
            return False
        self.committed += [self._place(final) for final in left["finals"]]
        self.base += left["start"]
        self.session_id, self.finals, self.ack, self.kept = left["begin"]["session_id"], [], {}, b""
        for at in range(0, len(left["backlog"]), 3200):
            await self.send(socket, left["backlog"][at : at + 3200])
        return True

    def _place(self, final: dict[str, Any]) -> tuple[int, int]:
        start, end = re.fullmatch(r"tag \d+ bytes (\d+) to (\d+)", final["text"]).groups()  # type: ignore[union-attr]
        return int(start), int(end)

    async def send(self, socket: ClientConnection, data: bytes) -> None:
        self.kept += data
        await socket.send(data)

    async def speak(self, socket: ClientConnection, seconds: float) -> None:
        """Sends the next audio of the source, at twice real time."""
        for _ in range(round(seconds * 20)):
            await self.send(socket, audio(_TAG, self.base + len(self.kept), 3200))
            await asyncio.sleep(0.05)

    async def read(self, socket: ClientConnection) -> None:
        """Reads until the connection breaks."""
        try:
            while True:
                message = json.loads(await socket.recv())
                if message["type"] == "transcript.final":
                    self.finals.append(message)
                elif message["type"] == "audio.ack":
                    self.ack = message
        except ConnectionClosed:
            pass


@pytest.mark.timeout(120)
async def test_a_client_written_from_the_guide_survives_four_cuts(scenario: Scenario) -> None:
    """Each time finals are in transfer: the messages of the server are held back for a while before the cut."""
    async with (
        a_server(scenario.environment(scenario.new_spool()), scenario.folder / "server.log") as server,
        open_channel(server.address) as channel,
        open_listener(BridgeSettings(bridge_port=0), channel) as port,
        Proxy("127.0.0.1", port) as proxy,
    ):
        client = _GuideClient(f"ws://{proxy.url}{STREAM_PATH}")
        for cuts_left in range(4, -1, -1):
            socket = await client.connect()
            reading = asyncio.create_task(client.read(socket))
            await client.speak(socket, 2)
            if cuts_left:
                proxy.stall(proxy.to_client)
                await client.speak(socket, 2)
                proxy.cut()
                proxy.restore()
            else:
                await socket.send(json.dumps({"type": "end"}))
            await reading
            await socket.close()
        assert socket.close_code == 1000
        finals = client.committed + [client._place(final) for final in client.finals]
    FIGURES.add("finals that a client written from the guide got", len(finals))
    assert finals[0][0] == 0
    for (_, end), (start, _) in pairwise(finals):
        assert 0 <= start - end <= _PAUSE_BYTES, "a final is missing, or came twice"
    assert client.base + len(client.kept) - finals[-1][1] <= _NOISE_BYTES
