"""Live streams: tracks sent at the pace of speech over WebSockets, and the text that comes back."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from hearing import Heard, Verdict, judge
from speech import RATE, Clip, Samples, Track, track
from usage import Meter, by_part
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

CHUNK_SECONDS = 0.1
READY_SECONDS = 60.0
LINGER_SECONDS = 90.0
"""The most that a service is given that has to be heard out before the stream is ended."""
END_SECONDS = 180.0
"""How long a service may take for what is left after the last of the audio."""

Message = dict[str, Any]


class Conversation:
    """One stream in the words of one service. This is ours; the peers' differ in what they override."""

    linger_seconds = 0.0
    """How long the service must have said nothing new after the last of the audio before the stream is ended."""

    is_complete = True
    """Whether all text so far is final: a service that says the same again is at work where it is not."""

    def __init__(self, base_url: str, language: str, **options: str) -> None:
        self.base_url = base_url
        self.language = language
        self.options = options

    @property
    def url(self) -> str:
        query = {"language": self.language, "store_audio": "true", "store_transcript": "true"} | self.options
        return f"{self.base_url}/v1/audio/transcriptions/stream?{urlencode(query)}"

    @property
    def hello(self) -> str | None:
        """What the client says first."""
        return None

    @property
    def goodbye(self) -> str | bytes:
        """What it says after the last of the audio."""
        return '{"type":"end"}'

    def frame(self, samples: Samples) -> bytes:
        return samples.tobytes()

    def is_ready(self, message: Message) -> bool:
        """Whether the service takes audio from this message on."""
        if message["type"] == "error":
            raise Refused(message["code"])
        return True

    def hear(self, message: Message, at: float, heard: Heard) -> bool:
        """Notes what a message says; whether it is the last one."""
        match message["type"]:
            case "transcript.final":
                heard.add(at, message["text"])
            case "transcript.partial":
                heard.partials.append((at, message["start"]))
            case "error":
                heard.refusal = str(message["code"])
            case "session.end":
                return True
        return False


class Refused(Exception):
    """The service does not serve the stream; the message says why."""


async def stream(
    conversation: Conversation, said: Track, speed: float = 1.0, sent: Callable[[], None] = lambda: None
) -> Heard:
    """Sends a track at `speed` times the pace of speech, and hears the service out.

    Args:
        sent: called when the last of the audio has been sent.
    """
    heard = Heard()
    try:
        async with connect(conversation.url, proxy=None, max_size=None, ping_timeout=None) as socket:
            if conversation.hello is not None:
                await socket.send(conversation.hello)
            async with asyncio.timeout(READY_SECONDS):
                while not conversation.is_ready(json.loads(await socket.recv())):
                    pass
            await _converse(socket, conversation, said, speed, heard, sent)
    except (Refused, TimeoutError, WebSocketException, OSError) as error:
        heard.refusal = heard.refusal or f"{type(error).__name__}: {error}"
    return heard


async def _converse(
    socket: ClientConnection,
    conversation: Conversation,
    said: Track,
    speed: float,
    heard: Heard,
    sent: Callable[[], None],
) -> None:
    started = time.monotonic()
    sending = asyncio.create_task(_send(socket, conversation, said, started, speed))
    sending.add_done_callback(lambda _: sent())
    receiving = asyncio.create_task(_receive(socket, conversation, heard, started))
    try:
        await sending
        until = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < until and await _heard_within(receiving, heard, conversation.linger_seconds):
            pass
        await socket.send(conversation.goodbye)
        async with asyncio.timeout(END_SECONDS):
            await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send(
    socket: ClientConnection, conversation: Conversation, said: Track, started: float, speed: float
) -> None:
    step = int(CHUNK_SECONDS * RATE)
    for position in range(0, len(said.samples), step):
        # A chunk can be sent when its last sample has been spoken.
        await asyncio.sleep(started + (position + step) / RATE / speed - time.monotonic())
        await socket.send(conversation.frame(said.samples[position : position + step]))


async def _receive(socket: ClientConnection, conversation: Conversation, heard: Heard, started: float) -> None:
    last: str | bytes = ""
    async for text in socket:
        if conversation.hear(json.loads(text), time.monotonic() - started, heard):
            return
        heard.news += text != last or not conversation.is_complete
        last = text


async def _heard_within(receiving: "asyncio.Task[None]", heard: Heard, seconds: float) -> bool:
    """Whether something new comes within so many seconds."""
    before = heard.news
    await asyncio.wait([receiving], timeout=seconds)
    return not receiving.done() and heard.news > before


@dataclass(frozen=True)
class Outcome:
    """What a number of streams side by side came to."""

    verdict: Verdict
    refusals: tuple[str, ...]
    cpu: str
    """Seconds per second of audio, by part."""
    memory: str
    """MiB by part."""


def tracks(found: Sequence[Clip], count: int, seconds: float) -> list[Track]:
    return [track(found, seconds, seed) for seed in range(count)]


async def crowd(
    converse: Callable[[], Conversation], said: Sequence[Track], meter: Meter, speed: float = 1.0
) -> Outcome:
    """All tracks side by side. The meter stops when the last of the audio has been sent."""
    speaking = set(range(len(said)))

    def sent(number: int) -> None:
        if number in speaking:
            speaking.remove(number)
            if not speaking:
                meter.stop()

    async def later(number: int, one: Track) -> Heard:
        # Streams do not start together in life, so that their utterances do not end together either.
        await asyncio.sleep(number * 7.3 % (2.0 * len(said)) / speed)
        heard = await stream(converse(), one, speed, partial(sent, number))
        sent(number)  # also when it was refused
        return heard

    heard = await asyncio.gather(*(later(number, one) for number, one in enumerate(said)))
    seconds = sum(one.seconds for one in said)
    return Outcome(
        sum((judge(one, found, speed) for one, found in zip(said, heard, strict=True)), Verdict()),
        tuple(found.refusal for found in heard if found.refusal),
        by_part({part: used / seconds for part, used in meter.cpu_seconds.items()}, 3),
        by_part(meter.memory_mib, 0),
    )
