"""A live transcription for asyncio."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from dalston.calls import Calls
from dalston.events import Event
from dalston.live.audio_stream import AudioStream, open_audio_stream
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
"""Events that may wait to be read before the transcription pauses."""
_FORMAT = ("encoding", "sample_rate", "channels")


def open_transcription(calls: Calls, audio: AudioSource, options: Mapping[str, Any]) -> AsyncTranscription:
    """See `AsyncClient.transcribe`."""
    behaviour, requested = Behaviour.split(options)
    if isinstance(requested.get("vocabulary"), str):
        raise TypeError("vocabulary must be a sequence of terms, not a string")
    for name, value in requested.items():  # Report a wrong type now instead of when the session opens.
        try:
            TranscribeConfig(**{name: value})
        except TypeError:
            raise TypeError(f"{name} cannot be of type {type(value).__name__}") from None
    return AsyncTranscription(_transport(calls, behaviour), audio, behaviour, requested)


def _transport(calls: Calls, behaviour: Behaviour) -> Transport:
    if behaviour.transport == "websocket":
        from dalston.live.websocket_transport import WebSocketTransport

        return WebSocketTransport(calls.endpoint)
    from dalston.live.grpc_transport import GrpcTransport

    return GrpcTransport(calls)


class AsyncTranscription:
    """Iterate over it for the events; the iteration raises the errors. Enter it to ensure that it is closed.

    After a lost connection it reconnects and resumes the session: times continue, and no final is missing or
    duplicated. After `give_up_after` seconds without progress it raises `ConnectionLost`.

    The queue of events is bounded: a transcription whose events are not read pauses.

    Entering it, or iterating over it without entering, raises:
        InvalidRequest: no installed decoder can read the audio; the message names what to install.
        OSError: the file or the microphone cannot be opened.
        TypeError, ValueError: the argument is not an audio source, or its options are invalid.
    """

    def __init__(
        self, transport: Transport, audio: AudioSource, behaviour: Behaviour, requested: Mapping[str, Any]
    ) -> None:
        self._transport = transport
        self._audio = audio
        self._behaviour = behaviour
        self._requested = requested
        self._events = EventQueue(_MOST_EVENTS)
        self._source: AudioStream | None = None
        self._send_queue: SendQueue | None = None
        self._session: ResumableSession | None = None
        self._reading: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._is_entered = False

    @property
    def is_started(self) -> bool:
        """Whether the transcription has been entered or iterated over."""
        return self._send_queue is not None

    @property
    def session_ids(self) -> tuple[str, ...]:
        """The sessions so far; more than one after a lost connection."""
        return tuple(self._session.session_ids) if self._session else ()

    @property
    def audio_seconds(self) -> float | None:
        """Length of the audio in seconds if its header states it; None before the transcription has started."""
        return self._source.seconds if self._source else None

    @property
    def transcript(self) -> Transcript:
        """The transcript so far; `session_id` is that of the last session, empty before the first."""
        finals = tuple(self._session.finals) if self._session else ()
        words: Counter[str] = Counter()
        for final in finals:
            words[final.language] += len(final.text.split())
        requested = self._session.language if self._session else "auto"
        return Transcript(
            session_id=self.session_ids[-1] if self.session_ids else "",
            language=words.most_common(1)[0][0] if words else requested,
            duration=self._session.duration if self._session else 0.0,
            text=" ".join(final.text for final in finals),
            utterances=tuple(
                Utterance(final.start, final.end, final.text, final.confidence, final.words, final.language, index)
                for index, final in enumerate(finals)
            ),
        )

    def flush(self) -> None:
        """Ends the utterance in progress; `Flushed` follows once all audio so far is transcribed."""
        self._started().flush()

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on: an ISO 639-1 code, or `auto`."""
        self._started().set_language(language)

    def end(self) -> None:
        """Ends the audio. The last finals and `Ended` follow."""
        send_queue = self._started()
        if self._source is not None and self._source.recording is not None:
            self._source.recording.close()  # Audio recorded before is still sent.
        elif self._reading is not None:
            self._reading.cancel()
            send_queue.finish()

    async def wait(self) -> Transcript:
        """Reads the remaining events and returns the transcript."""
        async for _ in self:
            pass
        return self.transcript

    async def close(self) -> None:
        """Aborts the transcription unless it has ended; its session is recorded as `interrupted`."""
        if self._task is not None:
            await cancel_and_wait(self._task)
        self._events.close()

    async def fail(self, error: Exception) -> None:
        """Aborts the transcription unless it has ended; the iteration raises `error`."""
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
        source = await open_audio_stream(self._audio, self._requested)
        if self._failure is not None:  # The client was closed while the source opened.
            await source.close()
            raise self._failure
        format_ = source.format
        config = TranscribeConfig(
            **{name: value for name, value in self._requested.items() if name not in _FORMAT},
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

    async def _run(self, source: AudioStream, session: ResumableSession) -> None:
        running = asyncio.create_task(session.run(), name="dalston session")
        reading = self._reading
        assert reading is not None  # noqa: S101 - for the type checker
        try:
            await asyncio.wait((running, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled():
                reading.result()  # An error of the source ends the transcription.
            await running
        finally:
            await cancel_and_wait(running, reading)
            with suppress(asyncio.CancelledError):
                await source.close()
            self._events.close()
