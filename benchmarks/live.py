"""Live streams: sends tracks over WebSockets in real time, and receives their text."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from scoring import ReceivedText, Verdict, judge
from speech import RATE, Clip, Samples, Track, track
from usage import Meter, by_part
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

CHUNK_SECONDS = 0.1
READY_SECONDS = 60.0
LINGER_SECONDS = 90.0
"""The longest wait for the last text of a service that sends it only before the stream is ended."""
END_SECONDS = 180.0
"""How long a service may take for the rest of the text after the last audio."""

Message = dict[str, Any]


class ServiceProtocol:
    """The protocol of one stream. This is ours; those of the peers override parts of it."""

    linger_seconds = 0.0
    """How long the service must have sent no new text after the last audio before the stream is ended."""

    is_complete = True
    """Whether all text so far is final: if not, a service that repeats its text is still working."""

    def __init__(self, base_url: str, language: str, **options: str) -> None:
        self.base_url = base_url
        self.language = language
        self.options = options

    @property
    def url(self) -> str:
        query = {"language": self.language, "store_audio": "true", "store_transcript": "true"} | self.options
        return f"{self.base_url}/v1/audio/transcriptions/stream?{urlencode(query)}"

    @property
    def first_message(self) -> str | None:
        """The first message of the client."""
        return None

    @property
    def last_message(self) -> str | bytes:
        """The message of the client after the last audio."""
        return '{"type":"end"}'

    def encode(self, samples: Samples) -> bytes:
        return samples.tobytes()

    def is_ready(self, message: Message) -> bool:
        """Whether the service accepts audio after this message."""
        if message["type"] == "error":
            raise Refused(message["code"])
        return True

    def receive(self, message: Message, at: float, received: ReceivedText) -> bool:
        """Records a message. Returns whether it is the last one."""
        match message["type"]:
            case "transcript.final":
                received.add(at, message["text"])
            case "transcript.partial":
                received.partials.append((at, message["start"]))
            case "error":
                received.refusal = str(message["code"])
            case "session.end":
                return True
        return False


class Refused(Exception):
    """The service refuses the stream; the message is the reason."""


async def stream(
    protocol: ServiceProtocol, spoken: Track, speed: float = 1.0, sent: Callable[[], None] = lambda: None
) -> ReceivedText:
    """Sends a track at `speed` times real time, and receives all of its text.

    Args:
        sent: called when the last audio has been sent.
    """
    received = ReceivedText()
    try:
        async with connect(protocol.url, proxy=None, max_size=None, ping_timeout=None) as socket:
            if protocol.first_message is not None:
                await socket.send(protocol.first_message)
            async with asyncio.timeout(READY_SECONDS):
                while not protocol.is_ready(json.loads(await socket.recv())):
                    pass
            await _exchange(socket, protocol, spoken, speed, received, sent)
    except (Refused, TimeoutError, WebSocketException, OSError) as error:
        received.refusal = received.refusal or f"{type(error).__name__}: {error}"
    return received


async def _exchange(
    socket: ClientConnection,
    protocol: ServiceProtocol,
    spoken: Track,
    speed: float,
    received: ReceivedText,
    sent: Callable[[], None],
) -> None:
    started = received.began = time.monotonic()
    sending = asyncio.create_task(_send(socket, protocol, spoken, started, speed))
    sending.add_done_callback(lambda _: sent())
    receiving = asyncio.create_task(_receive(socket, protocol, received, started))
    try:
        await sending
        until = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < until and await _has_news_within(receiving, received, protocol.linger_seconds):
            pass
        await socket.send(protocol.last_message)
        async with asyncio.timeout(END_SECONDS):
            await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(
    socket: ClientConnection, protocol: ServiceProtocol, spoken: Track, started: float, speed: float
) -> None:
    step = int(CHUNK_SECONDS * RATE)
    for position in range(0, len(spoken.samples), step):
        # A chunk can be sent when its last sample has been spoken.
        await asyncio.sleep(started + (position + step) / RATE / speed - time.monotonic())
        await socket.send(protocol.encode(spoken.samples[position : position + step]))


async def _receive(socket: ClientConnection, protocol: ServiceProtocol, received: ReceivedText, started: float) -> None:
    last: str | bytes = ""
    async for text in socket:
        if protocol.receive(json.loads(text), time.monotonic() - started, received):
            return
        received.news += text != last or not protocol.is_complete
        last = text


async def _has_news_within(receiving: "asyncio.Task[None]", received: ReceivedText, seconds: float) -> bool:
    """Whether a new message arrives within so many seconds."""
    before = received.news
    await asyncio.wait([receiving], timeout=seconds)
    return not receiving.done() and received.news > before


@dataclass(frozen=True)
class Outcome:
    """The result of several concurrent streams."""

    verdict: Verdict
    refusals: tuple[str, ...]
    cpu: str
    """Seconds per second of audio, by part."""
    memory: str
    """MiB, by part."""


def tracks(found: Sequence[Clip], count: int, seconds: float) -> list[Track]:
    return [track(found, seconds, seed) for seed in range(count)]


async def run_streams(
    make_protocol: Callable[[], ServiceProtocol], spoken: Sequence[Track], meter: Meter, speed: float = 1.0
) -> Outcome:
    """Sends all tracks concurrently. The meter stops when the last audio has been sent."""
    speaking = set(range(len(spoken)))

    def sent(number: int) -> None:
        if number in speaking:
            speaking.remove(number)
            if not speaking:
                meter.stop()

    async def later(number: int, one: Track) -> ReceivedText:
        # Real streams do not start together, and their utterances do not end together.
        await asyncio.sleep(number * 7.3 % (2.0 * len(spoken)) / speed)
        received = await stream(make_protocol(), one, speed, partial(sent, number))
        sent(number)  # also if it was refused
        return received

    received = await asyncio.gather(*(later(number, one) for number, one in enumerate(spoken)))
    seconds = sum(one.seconds for one in spoken)
    return Outcome(
        sum((judge(one, found, speed) for one, found in zip(spoken, received, strict=True)), Verdict()),
        tuple(found.refusal for found in received if found.refusal),
        by_part({part: used / seconds for part, used in meter.cpu_seconds.items()}, 3),
        by_part(meter.memory_mib, 0),
    )
