"""A client that streams the pattern and remembers what the server has acknowledged."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from dalston.grpc_call import GrpcCall
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc

from tests.faults.pattern import BYTES_PER_SECOND, MARK_BYTES, audio

_TURN_SECONDS = 0.1
_MOST_BYTES = 65_536
_FINAL = re.compile(r"tag (\d+) bytes (\d+) to (\d+)")
END = pb.TranscribeRequest(control=pb.TranscribeControl(end=pb.TranscribeControl.End()))
FLUSH = pb.TranscribeRequest(control=pb.TranscribeControl(flush=pb.TranscribeControl.Flush()))
KEEP_ALIVE = pb.TranscribeRequest(control=pb.TranscribeControl(keep_alive=pb.TranscribeControl.KeepAlive()))


@dataclass
class PatternClient:
    """One Transcribe stream of session `tag`, `speed` times as fast as speech."""

    channel: grpc.aio.Channel
    tag: int
    speed: float = 1.0
    store_audio: bool = True
    store_transcript: bool = True
    acks: bool = True
    source: Callable[[int, int, int], bytes] = audio
    """Tag, first byte and size to bytes; a test that sends something else than the pattern compares it itself."""

    metadata: tuple[tuple[str, str], ...] = ()
    """What the call shows."""
    session_id: str = ""
    begun: pb.SessionBegin | None = None
    first_byte: int = 0
    """Where in the source the session begins."""
    sent: int = 0
    """Bytes handed to gRPC, which is no promise of anybody's."""
    received: int = 0
    """Bytes that the server has acknowledged: by `audio_ack`, `flushed` or a final about them."""
    stored: int = 0
    """Bytes that the server has reported as stored."""
    processed: int = 0
    finals: list[str] = field(default_factory=list)
    final_times: list[float] = field(default_factory=list)
    """Seconds from when the last byte of a final was sent to its arrival, the silence that ends it included."""
    warnings: list[pb.Warning] = field(default_factory=list)
    terminating: pb.SessionTerminating | None = None
    end: pb.SessionEnd | None = None
    error: grpc.aio.AioRpcError | None = None
    call: Any = None
    _sent_at: list[tuple[int, float]] = field(default_factory=list)
    _reading: asyncio.Task[None] | None = None
    _server: GrpcCall | None = None
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _has_ended: bool = False

    async def begin(self, **config: Any) -> str:
        """Opens the stream; raises the status if it is refused."""
        self.call = transcription_pb2_grpc.TranscriptionServiceStub(self.channel).Transcribe(metadata=self.metadata)
        wanted = pb.TranscribeConfig(
            store_audio=self.store_audio, store_transcript=self.store_transcript, acks=self.acks, enable_vad=False
        )
        wanted.MergeFrom(pb.TranscribeConfig(**config))
        # What the bridge reads by: the server's own status, and every message before it.
        self._server = GrpcCall(self.call)
        await self.write(pb.TranscribeRequest(config=wanted))
        response = await self._server.read()
        if response is None:
            raise AssertionError("the stream ended well before it began")
        self.begun = response.session_begin
        self.session_id = response.session_begin.session_id
        self._reading = asyncio.create_task(self._read(self._server), name=f"reader {self.tag}")
        return self.session_id

    async def resume(self, previous: PatternClient, **config: Any) -> None:
        """Opens the stream to continue another, from the point in the audio that the server returns."""
        await self.begin(resume_session_id=previous.session_id, **config)
        assert self.begun is not None
        assert self.begun.resumed_from == previous.session_id
        assert self.begun.HasField("resume_from_seconds")
        self.first_byte = previous.first_byte + _bytes_of(self.begun.resume_from_seconds)

    async def stream(self, seconds: float) -> None:
        """Sends for so many seconds of the wall clock, or until the stream breaks."""
        loop = asyncio.get_running_loop()
        began, first = loop.time(), self.sent
        while (elapsed := loop.time() - began) < seconds and self.is_open:
            due = first + int(elapsed * self.speed * BYTES_PER_SECOND) // MARK_BYTES * MARK_BYTES
            if not await self.send(due - self.sent):
                return
            await asyncio.sleep(_TURN_SECONDS)

    async def send(self, size: int) -> bool:
        """Sends the next bytes; returns False if the stream is broken or ended."""
        while size > 0:
            message = self.source(self.tag, self.first_byte + self.sent, min(size, _MOST_BYTES))
            if not await self.write(pb.TranscribeRequest(audio=message)):
                return False
            self.sent += len(message)
            self._sent_at.append((self.sent, time.monotonic()))
            size -= len(message)
        return True

    async def write(self, request: pb.TranscribeRequest) -> bool:
        """False when the stream is broken or ended.

        One message at a time, and none after the end: gRPC refuses a write beside another, and grpc.aio makes that the
        stream's status, as it does with a write to a stream that the server has ended (grpc/grpc#36066).
        """
        assert self._server is not None
        async with self._writing:
            if self._has_ended:
                return False
            self._has_ended = request == END
            return await self._server.write(request)

    async def write_end(self) -> None:
        """Ends the session, whatever `stream` is doing: it sends no more."""
        await self.write(END)

    async def finish(self, seconds: float = 30) -> None:
        """Ends the session and reads to the end of the stream."""
        await self.write_end()
        await self.closed(seconds)

    async def closed(self, seconds: float = 30) -> None:
        """Waits for the stream to end, with whatever status."""
        assert self._reading is not None
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._reading)

    async def until_received(self, size: int, seconds: float = 30) -> None:
        """Waits until the server has acknowledged the first `size` bytes."""
        async with asyncio.timeout(seconds):
            while self.received < size:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def flush(self) -> None:
        """Waits until everything sent so far is received."""
        size = self.sent
        await self.write(FLUSH)
        await self.until_received(size)

    def vanish(self) -> None:
        """Cancels the call."""
        self.call.cancel()

    async def close(self) -> None:
        """Closes the stream and the channel."""
        if self.call is not None:
            self.call.cancel()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        await self.channel.close(0)

    @property
    def is_open(self) -> bool:
        return self._reading is not None and not self._reading.done()

    @property
    def reason(self) -> str:
        """The name of the status with which the stream ended."""
        return "OK" if self.error is None else self.error.code().name

    async def _read(self, server: GrpcCall) -> None:
        try:
            while (response := await server.read()) is not None:
                self._take(response)
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            if not self.call.cancelled():
                raise

    def _take(self, response: pb.TranscribeResponse) -> None:
        match response.WhichOneof("response"):
            case "final":
                self._take_final(response.final)
            case "flushed":
                self.received = max(self.received, _bytes_of(response.flushed.timestamp))
            case "audio_ack":
                ack = response.audio_ack
                self.received = max(self.received, _bytes_of(ack.received_seconds))
                self.processed = max(self.processed, _bytes_of(ack.processed_seconds))
                self.stored = max(self.stored, _bytes_of(ack.stored_seconds))
            case "warning":
                self.warnings.append(response.warning)
            case "session_terminating":
                self.terminating = response.session_terminating
            case "session_end":
                self.end = response.session_end
                self.received = max(self.received, _bytes_of(response.session_end.total_duration))

    def _take_final(self, final: pb.Final) -> None:
        self.finals.append(final.text)
        parsed = _FINAL.fullmatch(final.text)
        if parsed is not None:
            self.received = max(self.received, int(parsed[3]) - self.first_byte)
        last = _bytes_of(final.end)
        sent = next((when for size, when in self._sent_at if size >= last), None)
        if sent is not None:
            self.final_times.append(time.monotonic() - sent)
        while self._sent_at and self._sent_at[0][0] < last:
            self._sent_at.pop(0)


def _bytes_of(seconds: float) -> int:
    return round(seconds * BYTES_PER_SECOND)
