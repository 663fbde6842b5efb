"""One connection: a WebSocket whose handshake is done, and the `Transcribe` stream behind it.

Nothing is queued here. Each direction holds one message, and waits until the other end has taken it; what is under
way beyond that lies in the bounded buffers of the socket and of HTTP/2. So a client that reads slowly slows the
server's writing of its own stream, and a server that is busy slows the client's sending.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
from dalston.v1.transcription_pb2 import (
    SessionTerminating,
    TranscribeConfig,
    TranscribeRequest,
    TranscribeResponse,
)
from websockets.exceptions import ConnectionClosed

from bridge import metrics
from bridge.call import ServerCall
from bridge.client import ClientSocket
from bridge.closing import COMPLETED, GONE, CloseReason, close_reason_for, close_reason_of_failure
from bridge.config import RelayLimits
from bridge.frames import FLUSH, decode_frame, encode_response, is_end, is_flush, unsupported_warning
from bridge.metadata import Metadata, call_metadata
from bridge.parameters import Opening, parse_query
from bridge.race import first_close_reason
from bridge.refusal import Refused
from telemetry.logs import get_logger

log = get_logger(__name__)

Transcribe: TypeAlias = Callable[[Metadata], ServerCall]
"""Opens a stream; its first message is still to be written."""

CONDEMN_SECONDS = 1.0
"""For the server to record why the bridge refused the client. The client waits for it."""

STOPPING = close_reason_for("SERVER_SHUTDOWN", "the server is stopping; connect again and resume the session")


async def relay(
    socket: ClientSocket, transcribe: Transcribe, limits: RelayLimits, stopping: asyncio.Event
) -> CloseReason:
    """Serves one client until its connection is to be closed, and says how.

    `stopping` set makes the client leave in time, or else ends it. The socket is left open for the last words.
    """
    try:
        opening = parse_query(urlsplit(socket.opening_request.path).query)
        metadata = call_metadata(socket.opening_request.headers, socket.peer, opening.key)
    except Refused as refused:
        return close_reason_for(refused.reason, refused.message)
    call = transcribe(metadata)
    try:
        return await _Relay(socket, call, limits, stopping).run(opening)
    except* Exception:
        incident = uuid4().hex[:12]
        log.exception("relay failed", incident=incident)
        close_reason = close_reason_for("INTERNAL", f"internal error {incident}")
    finally:
        # The end of the call in every case: nothing happens where it is done, and otherwise the server learns it.
        await call.close()
    return close_reason


class _Relay:
    """The state of one connection, shared by the two directions."""

    def __init__(self, socket: ClientSocket, call: ServerCall, limits: RelayLimits, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._call = call
        self._limits = limits
        self._stopping = stopping
        self._writing = asyncio.Lock()
        self._begun = asyncio.Event()
        self._session_id = ""
        self._greeted = asyncio.Event()  # Set once the client has been sent the server's first message.
        self._unsupported: list[str] = []  # What the client asked for in vain and has not been told yet.
        self._heard = 0  # Frames received so far.
        self._listening = False  # Whether we wait for a frame.
        self._end_sent = False
        self._flushes_sent = self._flushes_answered = 0
        self._answered = asyncio.Event()
        self._verdict: CloseReason | None = None  # What the client broke, once it did.

    async def run(self, opening: Opening) -> CloseReason:
        return await first_close_reason(
            self._to_client(opening),
            self._to_server(),
            self._refusal(),
            self._silence(),
            self._abandoned(opening.config),
            self._shutdown(),
        )

    async def _to_client(self, opening: Opening) -> CloseReason:
        """Opens the stream and passes the server's messages on, to the end of the stream."""
        try:
            response = await self._begin(opening.config)
            self._begun.set()
            self._unsupported += opening.unsupported
            while response is not None:
                if response.HasField("flushed"):
                    self._flushes_answered += 1
                    self._answered.set()
                if not await self._send(response):
                    return GONE
                if response.HasField("session_end"):
                    return await self._completed()
                if not await self._warn():
                    return GONE
                self._greeted.set()
                response = await self._call.read()
        except TimeoutError:
            log.warning("server does not begin")
            return close_reason_for("UNAVAILABLE", "the transcription server does not answer; try again shortly")
        except grpc.aio.AioRpcError as error:
            return self._verdict or self._failure(error)
        log.error("stream ended without session_end")
        return self._verdict or close_reason_for("INTERNAL", "internal error: the session ended without its end")

    async def _begin(self, config: TranscribeConfig) -> TranscribeResponse | None:
        """Opens the session, and returns the server's first message.

        Raises:
            TimeoutError: there was none in time.
        """
        started = time.monotonic()
        async with asyncio.timeout(self._limits.begin_seconds):
            await self._call.write(TranscribeRequest(config=config))
            begin = await self._call.read()
        metrics.BEGIN_SECONDS.observe(time.monotonic() - started)
        self._session_id = begin.session_begin.session_id if begin else ""
        self._socket.has_begun = begin is not None
        return begin

    async def _send(self, response: TranscribeResponse) -> bool:
        """Sends one message to the client; False when the client does not take it."""
        text = encode_response(response)
        if text is None:
            return True
        try:
            async with asyncio.timeout(self._limits.stuck_seconds):
                await self._socket.send(text)
        except TimeoutError:
            log.warning("client does not read")
            return False
        except ConnectionClosed:
            # Who has left is the other direction's finding: it knows whether the client asked for the end before.
            return True
        metrics.MESSAGES_SENT.inc()
        return True

    async def _warn(self) -> bool:
        """Tells the client what it asked for in vain; False when the client does not take it."""
        while self._unsupported:
            if not await self._send(unsupported_warning(self._unsupported.pop(0))):
                return False
        return True

    async def _completed(self) -> CloseReason:
        """Lets the server finish the call by itself, so that it does not see a cancel behind its last message."""
        try:
            async with asyncio.timeout(self._limits.close_seconds):
                while await self._call.read() is not None:
                    pass
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            log.warning("stream did not end after session_end", error=type(error).__name__)
        return COMPLETED

    def _failure(self, error: grpc.aio.AioRpcError) -> CloseReason:
        close_reason = close_reason_of_failure(error)
        if close_reason.close_code in (1011, 4503):
            # The status's own text may be a library's; it is for the operator and is not sent.
            log.warning("stream failed", status=error.code().name, details=error.details(), code=close_reason.code)
        return close_reason

    async def _to_server(self) -> CloseReason | None:
        """Passes the client's messages on, once the session has begun, until the client is gone."""
        try:
            while not self._call.done():
                frame = await self._receive()
                if self._end_sent:
                    continue
                decoded = decode_frame(frame)
                # Until then a proxy may still move the stream to another server, which must get all of the audio.
                await self._begun.wait()
                await self._write(decoded.request)
                self._unsupported += decoded.unsupported
                if decoded.unsupported:
                    # Nothing comes before the server's first message.
                    await self._greeted.wait()
                    if not await self._warn():
                        return GONE
        except Refused as refused:
            return await self._condemn(close_reason_for(refused.reason, refused.message))
        except TimeoutError:
            log.warning("server takes no messages")
            return close_reason_for("UNAVAILABLE", "the transcription server takes no more audio; try again shortly")
        except ConnectionClosed:
            return await self._left()
        return None

    async def _left(self) -> CloseReason | None:
        if self._end_sent:
            # The client asked for the end and left: its session is completed all the same.
            await asyncio.sleep(self._limits.finish_seconds)
        elif self._socket.is_refused:
            return None  # It did not leave, it is being thrown out.
        elif self._begun.is_set():
            await self._settle()
        return GONE

    async def _abandoned(self, config: TranscribeConfig) -> CloseReason | None:
        """Ends a session that stores nothing soon after its connection is lost.

        What the client sent before that may be seconds of audio, which a busy server takes minutes to transcribe, and
        nobody will read that text.
        """
        if config.store_audio or config.store_transcript or config.enhance_on_end:
            return None
        await self._socket.lost()
        await asyncio.sleep(self._limits.settle_seconds)
        return None if self._end_sent else GONE

    async def _settle(self) -> None:
        """Waits until the server has everything that the client sent before it left: a cancel would overtake it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.settle_seconds):
                await self._write(FLUSH)
                while self._flushes_answered < self._flushes_sent:
                    self._answered.clear()
                    await self._answered.wait()

    async def _receive(self) -> bytes | str:
        self._listening = True
        frame = await self._socket.recv()
        self._listening = False
        self._heard += 1
        return frame

    async def _write(self, request: TranscribeRequest) -> None:
        """Writes one message to the server.

        Raises:
            TimeoutError: the server did not take it.
        """
        async with asyncio.timeout(self._limits.stall_seconds), self._writing:
            if await self._call.write(request):
                metrics.AUDIO_BYTES.inc(len(request.audio))
                self._flushes_sent += is_flush(request)
            if is_end(request):
                self._end_sent = True
                await self._call.half_close()

    async def _refusal(self) -> CloseReason | None:
        verdict = await self._socket.refused()
        return None if self._end_sent else await self._condemn(verdict)

    async def _condemn(self, verdict: CloseReason) -> CloseReason:
        """Makes the server record that the client broke the contract.

        All the server would see is a cancel, as if the client had vanished. So it is sent a message that is none of
        the contract's either, for which it fails the stream itself.
        """
        self._verdict = verdict
        if self._begun.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(CONDEMN_SECONDS):
                    await self._write(TranscribeRequest())
                    await self._call.wait_done()
        return verdict

    async def _silence(self) -> CloseReason | None:
        """Pings the client until it is silent.

        The library's own pings want the pong in time. That is unfair to a client that uploads faster than the server
        takes it: its pong stands in line behind its audio, which we do not read. So any frame is a sign of life, and
        while we do not read, silence is no sign of death.
        """
        while True:
            await asyncio.sleep(self._limits.ping_interval_seconds)
            heard = self._heard
            try:
                async with asyncio.timeout(self._limits.ping_timeout_seconds):
                    await (await self._socket.ping())
            except ConnectionClosed:
                return None
            except TimeoutError:
                if self._heard == heard and self._listening:
                    log.info("client does not answer")
                    return GONE

    async def _shutdown(self) -> CloseReason:
        """Tells the client that the bridge stops, and gives it time to finish or to go elsewhere."""
        await self._stopping.wait()
        # A client whose session has not begun has nothing to finish.
        if self._begun.is_set():
            terminating = SessionTerminating(
                reason="shutdown", grace_seconds=self._limits.grace_seconds, resume_session_id=self._session_id
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.grace_seconds):
                    if not await self._send(TranscribeResponse(session_terminating=terminating)):
                        return GONE
                    await asyncio.Event().wait()
        return STOPPING
