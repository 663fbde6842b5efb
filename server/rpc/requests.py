"""The client's requests of a Transcribe stream: checked for their order, their limits and their deadlines."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest

from domain.audio_message import MAX_AUDIO_MESSAGE_BYTES, AudioFault, Checked, check_audio
from domain.tenancy import TenantLimits
from server.audio.format import AudioFormat
from server.session.errors import IdleTimeout, InvalidAudio, InvalidMessage, MessageTooBig, SessionTimeout

Request: TypeAlias = TranscribeRequest | Checked[TranscribeRequest]
"""A request as it arrives. The recording interceptor has checked its audio; without one, it is checked here."""

_CONFIG_SECONDS: Final = 10.0
"""A client sends its config as soon as it has connected: until then its stream occupies a place."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The limits of a stream, in seconds."""

    max_session_seconds: float
    idle_timeout_seconds: float

    def of(self, tenant: TenantLimits) -> "StreamLimits":
        """These limits, replaced by the tenant's own where it has any."""
        return StreamLimits(
            tenant.max_session_seconds or self.max_session_seconds,
            tenant.idle_timeout_seconds or self.idle_timeout_seconds,
        )

    def exceeded(self) -> SessionTimeout:
        """The error that ends a session at `max_session_seconds`, of time or of audio."""
        return SessionTimeout(f"the session reached its limit of {self.max_session_seconds:g} seconds")


class RequestStream:
    """The requests of one stream."""

    def __init__(self, requests: AsyncIterator[Request], limits: StreamLimits) -> None:
        self._requests = aiter(requests)
        self.limits = limits
        self._deadline = asyncio.get_running_loop().time() + limits.max_session_seconds

    async def read_config(self) -> TranscribeConfig:
        """The first message.

        Raises:
            InvalidMessage: it is another message, or there is none.
            IdleTimeout: it does not arrive within 10 s, or the idle timeout if that is shorter.
        """
        first = await self._next(min(_CONFIG_SECONDS, self.limits.idle_timeout_seconds))
        if first is None:
            raise InvalidMessage("the stream ended before its config")
        message = first.message if isinstance(first, Checked) else first
        if message.WhichOneof("request") != "config":
            raise InvalidMessage("the first message must be config")
        return message.config

    async def read(self, audio: AudioFormat) -> AsyncIterator[bytes | TranscribeControl]:
        """Audio and controls until the client ends the stream, with or without `end`.

        Raises:
            InvalidMessage, InvalidAudio, MessageTooBig: a message is wrong or out of order.
            IdleTimeout, SessionTimeout: a limit is exceeded.
        """
        while (request := await self._next(self.limits.idle_timeout_seconds)) is not None:
            checked = request if isinstance(request, Checked) else _check(request, audio)
            message = checked.message
            match message.WhichOneof("request"):
                case "audio":
                    if checked.fault is not None:
                        raise _refusal(len(message.audio), checked.fault, audio)
                    yield message.audio
                case "control":
                    if message.control.WhichOneof("control") == "end":
                        return
                    yield message.control
                case "config":
                    raise InvalidMessage("config may be sent only once, as the first message")
                case _:
                    raise InvalidMessage("a message without config, audio or control")

    async def _next(self, seconds: float) -> Request | None:
        loop = asyncio.get_running_loop()
        idle = loop.time() + seconds
        try:
            async with asyncio.timeout_at(min(idle, self._deadline)):
                # Requests that are already received are read past the deadline: their audio is recorded, so it is
                # transcribed.
                return await anext(self._requests, None)
        except TimeoutError:
            if loop.time() >= self._deadline:
                raise self.limits.exceeded() from None
            raise IdleTimeout(f"nothing was received for {seconds:g} seconds") from None


def _check(request: TranscribeRequest, audio: AudioFormat) -> Checked[TranscribeRequest]:
    return Checked(request, check_audio(len(request.audio), audio.frame_bytes))


def _refusal(size: int, fault: AudioFault, audio: AudioFormat) -> InvalidAudio | MessageTooBig:
    match fault:
        case AudioFault.TOO_BIG:
            return MessageTooBig(f"audio of {size} bytes, at most {MAX_AUDIO_MESSAGE_BYTES} are allowed")
        case AudioFault.PARTIAL_FRAME:
            return InvalidAudio(
                f"{size} bytes are not a whole number of {audio.frame_bytes}-byte frames "
                f"({audio.encoding}, {audio.channels} channel{'s' if audio.channels > 1 else ''})"
            )
