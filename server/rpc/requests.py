"""The client's side of a Transcribe stream: messages in turn, within their limits and in time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest

from domain.tenancy import TenantLimits
from server.rpc.config_message import MAX_AUDIO_MESSAGE_BYTES
from server.session.errors import IdleTimeout, InvalidMessage, MessageTooBig, SessionTimeout

_CONFIG_SECONDS: Final = 10.0
"""A client sends its config as soon as it has connected: until then it keeps others from beginning."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What a stream is held to, in seconds."""

    max_session_seconds: float
    idle_timeout_seconds: float

    def of(self, tenant: TenantLimits) -> "StreamLimits":
        """These, with what is set for the tenant in their place."""
        return StreamLimits(
            tenant.max_session_seconds or self.max_session_seconds,
            tenant.idle_timeout_seconds or self.idle_timeout_seconds,
        )

    def exceeded(self) -> SessionTimeout:
        """The error that ends a session at `max_session_seconds`, of time or of audio."""
        return SessionTimeout(f"the session reached its limit of {self.max_session_seconds:g} seconds")


class RequestReader:
    """Reads one stream's requests."""

    def __init__(self, requests: AsyncIterator[TranscribeRequest], limits: StreamLimits) -> None:
        self._requests = aiter(requests)
        self.limits = limits
        self._deadline = asyncio.get_running_loop().time() + limits.max_session_seconds

    async def config(self) -> TranscribeConfig:
        """The first message.

        Raises:
            InvalidMessage: it is another, or there is none.
            IdleTimeout: it does not come within 10 s, or the idle timeout if that is shorter.
        """
        first = await self._next(min(_CONFIG_SECONDS, self.limits.idle_timeout_seconds))
        if first is None:
            raise InvalidMessage("the stream ended before its config")
        if first.WhichOneof("request") != "config":
            raise InvalidMessage("the first message must be config")
        return first.config

    async def __aiter__(self) -> AsyncIterator[bytes | TranscribeControl]:
        """Audio and controls until the client ends the stream, with or without `end`.

        Raises:
            InvalidMessage, MessageTooBig: a message is wrong or out of turn.
            IdleTimeout, SessionTimeout: the limits.
        """
        while (request := await self._next(self.limits.idle_timeout_seconds)) is not None:
            match request.WhichOneof("request"):
                case "audio":
                    if len(request.audio) > MAX_AUDIO_MESSAGE_BYTES:
                        raise MessageTooBig(
                            f"audio of {len(request.audio)} bytes, at most {MAX_AUDIO_MESSAGE_BYTES} are allowed"
                        )
                    yield request.audio
                case "control":
                    if request.control.WhichOneof("control") == "end":
                        return
                    yield request.control
                case "config":
                    raise InvalidMessage("config may be sent only once, as the first message")
                case _:
                    raise InvalidMessage("a message without config, audio or control")

    async def _next(self, seconds: float) -> TranscribeRequest | None:
        loop = asyncio.get_running_loop()
        idle = loop.time() + seconds
        try:
            async with asyncio.timeout_at(min(idle, self._deadline)):
                # What has been received already is given out past the deadline: it was recorded, so it is transcribed.
                return await anext(self._requests, None)
        except TimeoutError:
            if loop.time() >= self._deadline:
                raise self.limits.exceeded() from None
            raise IdleTimeout(f"nothing was received for {seconds:g} seconds") from None
