"""Sessions over WebSocket."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from dalston import errors
from dalston.endpoint import Endpoint
from dalston.live.websocket_codec import decode_response, encode_config, encode_control
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeResponse

_PATH = "/v1/audio/transcriptions/stream"
_OPEN_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_MAX_FRAME_BYTES = 16 * 1024 * 1024
"""`session.end` contains the whole transcript."""


class WebSocketTransport:
    """Opens a connection for each session."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ssl = ssl.create_default_context(cafile=endpoint.ca_file) if endpoint.is_secure else None

    async def open(self, config: TranscribeConfig) -> WebSocketConnection:
        """See `Transport.open`."""
        endpoint = self._endpoint
        scheme = "wss" if endpoint.is_secure else "ws"
        headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        try:
            socket = await connect(
                f"{scheme}://{endpoint.address}{_PATH}?{encode_config(config)}",
                additional_headers=headers,
                ssl=self._ssl,
                proxy=None if endpoint.is_loopback else True,
                compression=None,
                max_size=_MAX_FRAME_BYTES,
                open_timeout=_OPEN_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                # A pong would wait behind queued audio. The service's `audio.ack` messages prove that it is alive.
                ping_interval=None,
            )
        except InvalidStatus as error:
            raise _refusal(error.response.status_code) from None
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
            raise errors.Unavailable(f"the service cannot be reached: {error or type(error).__name__}") from None
        return WebSocketConnection(socket)


class WebSocketConnection:
    """The socket of one session."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._failure: errors.DalstonError | None = None

    async def send_audio(self, audio: bytes) -> bool:
        return await self._send(audio)

    async def send_control(self, control: TranscribeControl) -> bool:
        return await self._send(encode_control(control))

    async def receive(self) -> TranscribeResponse | None:
        try:
            while True:
                frame = await self._socket.recv()
                message = decode_response(frame) if isinstance(frame, str) else None
                if isinstance(message, errors.DalstonError):
                    self._failure = message  # The close frame follows.
                elif message is not None:
                    return message
        except ConnectionClosed as closed:
            if self._failure is not None:
                raise self._failure from None
            if closed.rcvd is not None and closed.rcvd.code == 1000:
                return None
            raise errors.Unavailable("the connection was lost") from None

    async def close(self) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2 * _CLOSE_SECONDS):
                await self._socket.close()

    async def _send(self, frame: bytes | str) -> bool:
        try:
            await self._socket.send(frame)
        except ConnectionClosed:
            return False
        return True


def _refusal(status: int) -> errors.DalstonError:
    """The error for a handshake that the service or a proxy rejected with an HTTP status."""
    if status == 401:
        return errors.AuthenticationError("the API key was rejected")
    if status == 403:
        return errors.PermissionDenied("the API key lacks the required scope")
    if status in (404, 405, 426):
        return errors.Unsupported("there is no Dalston service at this address")
    if status in (400, 414, 431):
        return errors.InvalidRequest("the parameters are too long, or the address does not accept this request")
    if status == 429:
        return errors.NoCapacity("the service is busy")
    return errors.Unavailable(f"the service is unavailable: it responded with HTTP status {status}")
