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
from dalston.live.audio_stream import Source, open_audio_stream
from dalston.live.cancellation import cancel_and_wait
from dalston.live.event_queue import EventQueue
from dalston.live.resumable_session import ResumableSession
from dalston.live.send_queue import SendQueue
from dalston.live.source_reader import SourceReader
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
        self._send_queue: SendQueue | None = None
        self._session: ResumableSession | None = None
        self._reading: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._is_entered = False

    @property
    def is_started(self) -> bool:
        """Whether it was entered or iterated over."""
        return self._send_queue is not None

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions it took so far: more than one when a connection was lost."""
        return tuple(self._session.session_ids) if self._session else ()

    @property
    def audio_seconds(self) -> float | None:
        """How long the audio is, as far as it says so itself; None before it was entered or iterated over."""
        return self._source.seconds if self._source else None

    @property
    def transcript(self) -> Transcript:
        """What was said so far; `session_id` is the last session's, and empty before it has begun."""
        finals = tuple(self._session.finals) if self._session else ()
        words: Counter[str] = Counter()
        for final in finals:
            words[final.language] += len(final.text.split())
        asked = self._session.language if self._session else "auto"
        return Transcript(
            session_id=self.session_ids[-1] if self.session_ids else "",
            language=words.most_common(1)[0][0] if words else asked,
            duration=self._session.duration if self._session else 0.0,
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
        send_queue = self._started()
        if self._source is not None and self._source.recording is not None:
            self._source.recording.close()  # What it has heard by now is still taken.
        elif self._reading is not None:
            self._reading.cancel()
            send_queue.finish()

    async def wait(self) -> Transcript:
        """Reads all events that are left, and gives the transcript."""
        async for _ in self:
            pass
        return self.transcript

    async def close(self) -> None:
        """Breaks the transcription off, unless it has ended: the session is `interrupted`."""
        if self._task is not None:
            await cancel_and_wait(self._task)
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

    def _started(self) -> SendQueue:
        if self._send_queue is None:
            raise RuntimeError("the transcription has not been started: enter it, or iterate over it")
        return self._send_queue

    async def _start(self) -> None:
        if self._task is not None:
            return
        if self._failure is not None:
            raise self._failure
        source = await open_audio_stream(self._audio, self._asked)
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
        send_queue = SendQueue(format_, config.language)
        session = ResumableSession(self._transport, config, self._behaviour, send_queue, self._events.put)
        reader = SourceReader(
            source,
            send_queue,
            self._behaviour.pace,
            format_.size(self._behaviour.max_kept_seconds),
            lambda: session.received_bytes,
            self._events.put,
        )
        self._source, self._send_queue, self._session = source, send_queue, session
        self._reading = asyncio.create_task(reader.run(), name="dalston reader")
        self._task = asyncio.create_task(self._run(source, session), name="dalston transcription")

    async def _run(self, source: Source, session: ResumableSession) -> None:
        talking = asyncio.create_task(session.run(), name="dalston session")
        reading = self._reading
        assert reading is not None  # noqa: S101 - for the type checker
        try:
            await asyncio.wait((talking, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled():
                reading.result()  # What the source raised is the end.
            await talking
        finally:
            await cancel_and_wait(talking, reading)
            with suppress(asyncio.CancelledError):
                await source.close()
            self._events.close()
