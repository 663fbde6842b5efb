"""A live transcription."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from dalston.calls import Calls
from dalston.events import Event
from dalston.live.conversation import Conversation
from dalston.live.events import EventQueue
from dalston.live.feeder import Feeder
from dalston.live.outgoing import Outgoing
from dalston.live.source import Source, open_source
from dalston.live.tasks import stop
from dalston.live.transport import Transport
from dalston.options import AudioSource, Behaviour
from dalston.records import Transcript, Utterance
from dalston.v1.transcription_pb2 import TranscribeConfig

_MOST_EVENTS = 1000
"""Events that wait to be read, before the transcription waits for whoever reads them."""
_FORMAT = ("encoding", "sample_rate", "channels")


def open_transcription(calls: Calls, audio: AudioSource, options: Mapping[str, Any]) -> AsyncTranscription:
    """See `AsyncClient.transcribe`."""
    behaviour, asked = Behaviour.split(options)
    if isinstance(asked.get("vocabulary"), str):
        raise TypeError("vocabulary is a sequence of terms")
    for name, value in asked.items():  # Whether they are of their types is better known now than later.
        try:
            TranscribeConfig(**{name: value})
        except TypeError:
            raise TypeError(f"{name} cannot be of type {type(value).__name__}") from None
    return AsyncTranscription(_transport(calls, behaviour), audio, behaviour, asked)


def _transport(calls: Calls, behaviour: Behaviour) -> Transport:
    if behaviour.transport == "websocket":
        from dalston.live.websocket_transport import WebSocketTransport

        return WebSocketTransport(calls.endpoint)
    from dalston.live.grpc_transport import GrpcTransport

    return GrpcTransport(calls)


class AsyncTranscription:
    """Iterate over it for the events; errors are raised there. Enter it to be sure that it is closed.

    A connection that is lost is made again, and the session resumed: times go on, and no final is missing or told
    twice. That ends with `ConnectionLost` when nothing got further for `give_up_after` seconds.

    Events wait to be read, up to a bound: a transcription that nobody iterates over comes to a halt.

    Entering it, or iterating without that, raises:
        InvalidRequest: the audio is of a kind that nothing here can read; the message says what to install.
        OSError: the file or the microphone cannot be opened.
        TypeError, ValueError: it is no source of audio, or its options cannot be.
    """

    def __init__(
        self, transport: Transport, audio: AudioSource, behaviour: Behaviour, asked: Mapping[str, Any]
    ) -> None:
        self._transport = transport
        self._audio = audio
        self._behaviour = behaviour
        self._asked = asked
        self._events = EventQueue(_MOST_EVENTS)
        self._source: Source | None = None
        self._outgoing: Outgoing | None = None
        self._conversation: Conversation | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._is_entered = False

    @property
    def is_started(self) -> bool:
        """Whether it was entered or iterated over."""
        return self._outgoing is not None

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions it took so far: more than one when a connection was lost."""
        return tuple(self._conversation.session_ids) if self._conversation else ()

    @property
    def audio_seconds(self) -> float | None:
        """How long the audio is, as far as it says so itself; None before it was entered or iterated over."""
        return self._source.seconds if self._source else None

    @property
    def transcript(self) -> Transcript:
        """What was said so far; `session_id` is the last session's, and empty before it has begun."""
        finals = tuple(self._conversation.finals) if self._conversation else ()
        words: Counter[str] = Counter()
        for final in finals:
            words[final.language] += len(final.text.split())
        asked = self._conversation.language if self._conversation else "auto"
        return Transcript(
            session_id=self.session_ids[-1] if self.session_ids else "",
            language=words.most_common(1)[0][0] if words else asked,
            duration=self._conversation.duration if self._conversation else 0.0,
            text=" ".join(final.text for final in finals),
            utterances=tuple(
                Utterance(final.start, final.end, final.text, final.confidence, final.words, final.language, index)
                for index, final in enumerate(finals)
            ),
        )

    def flush(self) -> None:
        """Ends the utterance in progress now; `Flushed` comes once all audio taken so far is transcribed."""
        self._started().flush()

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on: an ISO 639-1 code or `auto`."""
        self._started().set_language(language)

    def end(self) -> None:
        """Takes no more audio. The last finals and `Ended` follow."""
        outgoing = self._started()
        if self._source is not None and self._source.recording is not None:
            self._source.recording.close()  # What it has heard by now is still taken.
        elif self._feeding is not None:
            self._feeding.cancel()
            outgoing.finish()

    async def wait(self) -> Transcript:
        """Reads all events that are left, and gives the transcript."""
        async for _ in self:
            pass
        return self.transcript

    async def close(self) -> None:
        """Breaks the transcription off, unless it has ended: the session is `interrupted`."""
        if self._task is not None:
            await stop(self._task)
        self._events.close()

    async def fail(self, error: Exception) -> None:
        """Breaks the transcription off, unless it has ended; whoever iterates over it gets `error`."""
        if self._task is None or not self._task.done():
            self._failure = error
            await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        await self._start()
        try:
            while (event := await self._events.get()) is not None:
                yield event
        finally:
            if not self._is_entered:
                await self.close()
        if self._failure is not None:
            raise self._failure
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def __aenter__(self) -> Self:
        self._is_entered = True
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _started(self) -> Outgoing:
        if self._outgoing is None:
            raise RuntimeError("the transcription has not been started: enter it, or iterate over it")
        return self._outgoing

    async def _start(self) -> None:
        if self._task is not None:
            return
        if self._failure is not None:
            raise self._failure
        source = await open_source(self._audio, self._asked)
        if self._failure is not None:  # The client was closed meanwhile.
            await source.close()
            raise self._failure
        format_ = source.format
        config = TranscribeConfig(
            **{name: value for name, value in self._asked.items() if name not in _FORMAT},
            encoding=format_.encoding,
            sample_rate=format_.sample_rate,
            channels=format_.channels,
            acks=True,
        )
        outgoing = Outgoing(format_, config.language)
        conversation = Conversation(self._transport, config, self._behaviour, outgoing, self._events.put)
        feeder = Feeder(
            source,
            outgoing,
            self._behaviour.pace,
            format_.size(self._behaviour.max_kept_seconds),
            lambda: conversation.received_bytes,
            self._events.put,
        )
        self._source, self._outgoing, self._conversation = source, outgoing, conversation
        self._feeding = asyncio.create_task(feeder.run(), name="dalston feeder")
        self._task = asyncio.create_task(self._run(source, conversation), name="dalston transcription")

    async def _run(self, source: Source, conversation: Conversation) -> None:
        talking = asyncio.create_task(conversation.run(), name="dalston conversation")
        feeding = self._feeding
        assert feeding is not None  # noqa: S101 - for the type checker
        try:
            await asyncio.wait((talking, feeding), return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not feeding.cancelled():
                feeding.result()  # What the source raised is the end.
            await talking
        finally:
            await stop(talking, feeding)
            with suppress(asyncio.CancelledError):
                await source.close()
            self._events.close()
