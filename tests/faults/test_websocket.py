"""P1 over the other protocol: a WebSocket that goes silent without FIN or RST."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from bridge.config import BridgeSettings
from bridge.listener import open_listener
from bridge.protocols.native.protocol import PATH as STREAM_PATH
from edge.channel import open_channel
from tests.faults.client import PatternClient
from tests.faults.figures import FIGURES
from tests.faults.pattern import BYTES_PER_SECOND, audio
from tests.faults.proxy import Proxy
from tests.faults.scenario import Expected, Scenario
from tests.faults.servers import a_server

TAG = 3
SENT = int(2.2 * BYTES_PER_SECOND)
"""In the middle of the second utterance."""


async def until(socket: Any, kind: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Reads up to the next message of this kind."""
    async with asyncio.timeout(10):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            messages.append(message)
            if message["type"] == kind:
                return message


@pytest.mark.timeout(90)
async def test_a_silent_websocket_is_detected_by_pings_and_its_session_kept(scenario: Scenario) -> None:
    spool = scenario.new_spool()
    settings = BridgeSettings(bridge_port=0, bridge_ping_interval_seconds=1, bridge_ping_timeout_seconds=1)
    async with (
        a_server(scenario.environment(spool), scenario.folder / "server.log") as server,
        open_channel(server.address) as channel,
        open_listener(settings, channel) as port,
        Proxy("127.0.0.1", port) as proxy,
    ):
        query = "store_audio=true&store_transcript=true&acks=true&enable_vad=false"
        messages: list[dict[str, Any]] = []
        async with connect(
            f"ws://{proxy.url}{STREAM_PATH}?{query}", proxy=None, compression=None, ping_interval=None, close_timeout=0
        ) as socket:
            begin = await until(socket, "session.begin", messages)
            for start in range(0, SENT, 3200):
                await socket.send(audio(TAG, start, min(3200, SENT - start)))
            await until(socket, "transcript.final", messages)
            acked = 0.0
            while acked < SENT / BYTES_PER_SECOND:
                acked = (await until(socket, "audio.ack", messages))["received_seconds"]
            proxy.stall()
            await scenario.settled(20)
            proxy.cut()
        FIGURES.add("clients that vanished")
        finals = tuple(message["text"] for message in messages if message["type"] == "transcript.final")
        session_id = begin["session_id"]
        client = PatternClient(server.channel(), TAG, session_id=session_id, sent=SENT, received=SENT)
        client.finals = list(finals)
        await scenario.compare([Expected.of(client)])
        await client.channel.close()
        row = await scenario.row(session_id)
        assert (row["status"], row["audio_duration_seconds"]) == ("interrupted", 2.2)
        assert row["utterance_count"] == len(finals) + 1 == 2, "speech in progress was not transcribed"
        await scenario.until_nothing_is_left(spool)
