"""One connection: a client's WebSocket, and the `Transcribe` stream behind it. It knows no client protocol.

Nothing is queued here. Each direction holds one message, and waits until the other end has taken it; further messages
are in the bounded buffers of the socket and of HTTP/2. This is the backpressure: a client that reads slowly slows the
server's writing of its own stream, and a server that is busy slows the client's sending.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias
from uuid import uuid4

import grpc
from dalston.grpc_call import GrpcCall
from dalston.v1.transcription_pb2 import (
    SessionTerminating,
    TranscribeConfig,
    TranscribeControl,
    TranscribeRequest,
    TranscribeResponse,
)
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from bridge import metrics
from bridge.client import ClientSocket
from bridge.config import RelayLimits
from bridge.protocols.interface import Action, Begin, ClientText, End, Opening
from bridge.race import first_close_reason
from edge.closing import COMPLETED, DISCONNECTED, CloseReason, close_reason_for, close_reason_of_failure
from edge.refusal import Refused
from telemetry.logs import get_logger

log = get_logger(__name__)

TranscribeCall: TypeAlias = GrpcCall[TranscribeRequest, TranscribeResponse]
Transcribe: TypeAlias = Callable[[], TranscribeCall]
"""Opens the stream of one connection; its first message is still to be written."""

FAIL_SECONDS = 1.0
"""For the server to fail a stream whose client broke the protocol. The client waits for it."""

FLUSH = TranscribeRequest(control=TranscribeControl(flush=TranscribeControl.Flush()))
END = TranscribeRequest(control=TranscribeControl(end=TranscribeControl.End()))

STOPPING = close_reason_for("SERVER_SHUTDOWN", "the server is stopping; connect again and resume the session")
NOT_ANSWERING = close_reason_for("UNAVAILABLE", "the transcription server does not answer; try again shortly")
NOT_READING = close_reason_for("UNAVAILABLE", "the transcription server takes no more audio; try again shortly")
NOT_CONFIGURED = close_reason_for("IDLE_TIMEOUT", "the session was not configured in time")

_ENDING_CODES = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)


class Relay:
    """The state of one connection, shared by the two directions."""

    def __init__(
        self,
        socket: ClientSocket,
        opening: Opening,
        transcribe: Transcribe,
        limits: RelayLimits,
        stopping: asyncio.Event,
    ) -> None:
        self._socket = socket
        self._protocol = socket.client_protocol
        self._transcribe = transcribe
        self._limits = limits
        self._stopping = stopping
        self._config: asyncio.Future[TranscribeConfig] = asyncio.get_running_loop().create_future()
        if opening.config is not None:
            self._config.set_result(opening.config)
        self._call: TranscribeCall | None = None
        self._first: TranscribeResponse | None = None  # What the server answered in the handshake, until it is sent.
        self._sending = asyncio.Lock()  # Keeps texts in the order in which the protocol returned them.
        self._writing = asyncio.Lock()
        self._begun = asyncio.Event()
        self._session_id = ""
        self._frames_received = 0
        self._is_receiving = False  # Whether the relay waits for a frame.
        self._end_sent = False
        self._flushes_sent = self._flushes_answered = 0
        self._answered = asyncio.Event()
        self._refusal: CloseReason | None = None  # What the client broke, once it did.

    async def begin(self) -> CloseReason | None:
        """Begins the session before the handshake is answered; returns the reason if the server refuses it.

        If the connection is lost after that and before `run`, the owner must call `cancel`.
        """
        try:
            self._first = await self._begin(self._config.result())
            if self._first is not None:
                return None
            reason = self._ended_without_end()
        except TimeoutError:
            reason = NOT_ANSWERING
        except grpc.aio.AioRpcError as error:
            reason = self._reason_of(error)
        except asyncio.CancelledError:
            self.cancel()
            raise
        await self._close_call()
        return reason

    def cancel(self) -> None:
        """Cancels the stream of a connection that was lost in the handshake."""
        if self._call is not None:
            self._call.cancel()

    async def run(self) -> CloseReason:
        """Serves the client until its connection is to be closed, and returns the reason.

        When `stopping` is set, the client gets the grace period to finish. The socket is left open for a last message.
        """
        try:
            return await first_close_reason(
                self._to_client(),
                self._to_server(),
                self._watch_refusals(),
                self._watch_pongs(),
                self._watch_unstored(),
                self._shutdown(),
            )
        except* Exception:
            incident = uuid4().hex[:12]
            log.exception("relay failed", incident=incident)
            close_reason = close_reason_for("INTERNAL", f"internal error {incident}")
        finally:
            # The call ends in every case: this is a no-op if it is over, and otherwise a cancel that the server sees.
            await self._close_call()
        return close_reason

    async def _close_call(self) -> None:
        if self._call is not None:
            await self._call.close()

    async def _to_client(self) -> CloseReason:
        """Opens the stream and passes the server's messages on, to the end of the stream."""
        try:
            async with asyncio.timeout(self._limits.configure_seconds):
                config = await asyncio.shield(self._config)
        except TimeoutError:
            return self._refusal or NOT_CONFIGURED
        try:
            response = self._first or await self._begin(config)
            self._first = None
            self._begun.set()
            while response is not None:
                if response.HasField("flushed"):
                    self._flushes_answered += 1
                    self._answered.set()
                if not await self._send(response):
                    return DISCONNECTED
                if response.HasField("session_end"):
                    return await self._completed()
                response = await self._open_call.read()
        except TimeoutError:
            log.warning("server does not begin the session")
            return NOT_ANSWERING
        except grpc.aio.AioRpcError as error:
            return self._refusal or self._reason_of(error)
        return self._refusal or self._ended_without_end()

    async def _begin(self, config: TranscribeConfig) -> TranscribeResponse | None:
        """Opens the session, and returns the server's first message.

        Raises:
            TimeoutError: there was none in time.
        """
        started = time.monotonic()
        self._call = self._transcribe()
        async with asyncio.timeout(self._limits.begin_seconds):
            await self._call.write(TranscribeRequest(config=config))
            begin = await self._call.read()
        metrics.BEGIN_SECONDS.observe(time.monotonic() - started)
        self._session_id = begin.session_begin.session_id if begin else ""
        self._socket.has_begun = begin is not None
        return begin

    @property
    def _open_call(self) -> TranscribeCall:
        if self._call is None:
            raise RuntimeError("the protocol sent a request before the session was configured")
        return self._call

    async def _send(self, response: TranscribeResponse) -> bool:
        """Sends the texts of one response to the client; False when the client does not take them."""
        async with self._sending:
            texts = [*self._protocol.send(response)]
            if response.HasField("audio_ack"):
                texts += self._protocol.tick(response.audio_ack.processed_seconds)
            return await self._send_texts(texts)

    async def _send_texts(self, texts: Sequence[str]) -> bool:
        for text in texts:
            try:
                async with asyncio.timeout(self._limits.stuck_seconds):
                    await self._socket.send(text)
            except TimeoutError:
                log.warning("client does not read")
                return False
            except ConnectionClosed:
                # The other direction reports the disconnect: it knows whether the client sent the end before.
                return True
            metrics.MESSAGES_SENT.inc()
        return True

    async def _completed(self) -> CloseReason:
        """Lets the server finish the call by itself, so that it does not see a cancel after its last message."""
        try:
            async with asyncio.timeout(self._limits.close_seconds):
                while await self._open_call.read() is not None:
                    pass
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            log.warning("stream did not end after session_end", error=type(error).__name__)
        return COMPLETED

    def _reason_of(self, error: grpc.aio.AioRpcError) -> CloseReason:
        close_reason = close_reason_of_failure(error)
        if close_reason.reason in ("INTERNAL", "NO_CAPACITY", "UNAVAILABLE"):
            # The text of the status may be a library's; it is logged for the operator and is not sent.
            log.warning("stream failed", status=error.code().name, details=error.details(), code=close_reason.code)
        return close_reason

    def _ended_without_end(self) -> CloseReason:
        log.error("stream ended without session_end")
        return close_reason_for("INTERNAL", "internal error: the session ended without its end")

    async def _to_server(self) -> CloseReason | None:
        """Passes the client's messages on, once the session has begun, until the client disconnects."""
        try:
            while self._call is None or not self._call.done():
                frame = await self._receive()
                if self._end_sent:
                    continue
                for action in self._protocol.receive(frame):
                    if not await self._act(action):
                        return DISCONNECTED
        except Refused as refused:
            return await self._fail_stream(close_reason_for(refused.reason, refused.message))
        except TimeoutError:
            log.warning("server takes no messages")
            return NOT_READING
        except ConnectionClosed:
            return await self._disconnected()
        return None

    async def _act(self, action: Action) -> bool:
        """Carries out an action; False when the client does not take a text."""
        match action:
            case ClientText(text):
                async with self._sending:
                    return await self._send_texts((text,))
            case Begin(config):
                self._config.set_result(config)
            case End():
                await self._write_begun(END)
            case request:
                await self._write_begun(request)
        return True

    async def _write_begun(self, request: TranscribeRequest) -> None:
        if not self._config.done():
            raise RuntimeError("the protocol sent a request before the session was configured")
        # Until the session has begun, a proxy may still move the stream to another server, which must get all audio.
        await self._begun.wait()
        await self._write(request)

    async def _disconnected(self) -> CloseReason | None:
        if self._end_sent:
            return await self._finish()
        if self._socket.is_refused:
            return None  # It did not disconnect, the bridge closes the connection.
        if self._begun.is_set() and self._protocol.close_is_end and self._socket.close_code in _ENDING_CODES:
            with suppress(TimeoutError):
                await self._write(END)
            return await self._finish()
        if self._begun.is_set():
            await self._settle()
        return DISCONNECTED

    async def _finish(self) -> CloseReason:
        """Waits for the server: the client sent the end and disconnected, and its session is completed all the same."""
        await asyncio.sleep(self._limits.finish_seconds)
        return DISCONNECTED

    async def _watch_unstored(self) -> CloseReason | None:
        """Ends a session that stores nothing soon after its connection is lost.

        What the client sent before that may be seconds of audio, which a busy server takes minutes to transcribe, and
        no client will read that text.
        """
        config = await asyncio.shield(self._config)
        if config.store_audio or config.store_transcript or config.enhance_on_end:
            return None
        await self._socket.lost()
        await asyncio.sleep(self._limits.settle_seconds)
        return None if self._end_sent else DISCONNECTED

    async def _settle(self) -> None:
        """Waits until the server has all that the client sent before it disconnected: a cancel would overtake it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.settle_seconds):
                await self._write(FLUSH)
                while self._flushes_answered < self._flushes_sent:
                    self._answered.clear()
                    await self._answered.wait()

    async def _receive(self) -> bytes | str:
        self._is_receiving = True
        frame = await self._socket.recv()
        self._is_receiving = False
        self._frames_received += 1
        return frame

    async def _write(self, request: TranscribeRequest) -> None:
        """Writes one message to the server.

        Raises:
            TimeoutError: the server did not take it.
        """
        control = request.control.WhichOneof("control")
        async with asyncio.timeout(self._limits.stall_seconds), self._writing:
            if await self._open_call.write(request):
                metrics.AUDIO_BYTES.inc(len(request.audio))
                self._flushes_sent += control == "flush"
            if control == "end":
                self._end_sent = True
                await self._open_call.half_close()

    async def _watch_refusals(self) -> CloseReason | None:
        refusal = await self._socket.refused()
        return None if self._end_sent else await self._fail_stream(refusal)

    async def _fail_stream(self, refusal: CloseReason) -> CloseReason:
        """Makes the server record that the client broke the protocol.

        All the server would see is a cancel, as after a disconnect. So it is sent a message that is invalid as well,
        for which it fails the stream itself.
        """
        self._refusal = refusal
        if self._begun.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FAIL_SECONDS):
                    await self._write(TranscribeRequest())
                    await self._open_call.wait_done()
        return refusal

    async def _watch_pongs(self) -> CloseReason | None:
        """Pings the client until it does not answer.

        The library's own pings require the pong in time. That is unfair to a client that uploads faster than the
        server takes it: its pong is queued behind its audio, which the relay does not read. So any frame counts as an
        answer, and while the relay does not read, a missing one is no sign of a lost connection.
        """
        while True:
            await asyncio.sleep(self._limits.ping_interval_seconds)
            received = self._frames_received
            try:
                async with asyncio.timeout(self._limits.ping_timeout_seconds):
                    await (await self._socket.ping())
            except ConnectionClosed:
                return None
            except TimeoutError:
                if self._frames_received == received and self._is_receiving:
                    log.info("client does not answer pings")
                    return DISCONNECTED

    async def _shutdown(self) -> CloseReason:
        """Notifies the client that the bridge stops, and waits for the grace period."""
        await self._stopping.wait()
        # A client whose session has not begun has nothing to finish.
        if self._begun.is_set():
            terminating = SessionTerminating(
                reason="shutdown", grace_seconds=self._limits.grace_seconds, resume_session_id=self._session_id
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.grace_seconds):
                    if not await self._send(TranscribeResponse(session_terminating=terminating)):
                        return DISCONNECTED
                    await asyncio.Event().wait()
        return STOPPING
