"""One session: audio bytes in, events out."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from domain.transcript import TimedWord, Utterance
from server.audio.container import ContainerDetector
from server.audio.decoder import MODEL_RATE, Decoder, Samples
from server.inference.errors import QueueFull
from server.inference.recognition import Recognition, Word
from server.inference.scheduling.session_key import SessionKey
from server.session import metrics
from server.session.budget import MAX_FLUSHES, HeldSegment, UtteranceBudget
from server.session.buffer import AudioBuffer
from server.session.clock import SampleClock
from server.session.endpoint_timer import TICK_SECONDS, EndpointTimer
from server.session.errors import InvalidAudio
from server.session.events import (
    Acknowledged,
    ContainerFound,
    Ended,
    Event,
    FinalResult,
    Flushed,
    SpeechEnded,
    SpeechStarted,
    SpeechSuppressed,
    Terminating,
)
from server.session.lag import Lag
from server.session.language import SpokenLanguage
from server.session.options import SessionOptions
from server.session.partials import Partials
from server.session.recent_partials import RecentPartials
from server.session.recognizer import Recognizer, SessionRecognizer
from server.session.segmenter import Segmenter, SegmenterEvent, SpeechEnd, SpeechSegment, SpeechStart
from server.vad.silero import WINDOW_SAMPLES, VadStream

MAX_PENDING = 4
"""Utterances of a session that are with the model or wait for it before `push` waits: 112 s of audio at most."""
_MAX_EVENTS = 64
"""Unread events before the session waits for the reader."""
_ACK_SECONDS = 1.0
"""The shortest interval between two acknowledgements."""
_UNCHANGED_ACKS = 5
"""After so many intervals without progress an acknowledgement is sent all the same: what is stored may have changed."""
_YIELD_SAMPLES = 8 * WINDOW_SAMPLES
"""Running the detector on a window takes 0.1 ms of the event loop: after so many samples other tasks may run."""
_VOICELESS_SAMPLES = 4 * WINDOW_SAMPLES
"""After so much silence an utterance is probably over: a partial would only delay its final."""
_QUEUE_FULL_SECONDS = 0.25
"""How long a session waits before it calls an engine again whose queue was full."""


@dataclass(frozen=True, slots=True)
class _Pending:
    segment: SpeechSegment
    language: SpokenLanguage
    recognition: "asyncio.Task[Recognition | Exception]"


class Session:
    """One session: `push`, `flush` and `finish` on one side, `async for event in session` on the other.

    An async context manager, because it owns tasks: leaving it drops unfinished work. One caller pushes and one
    iterates; the iteration ends after `finish`. Backpressure bounds memory: each side waits when the other is slow.
    """

    def __init__(
        self,
        options: SessionOptions,
        vad: VadStream,
        recognizer: Recognizer,
        lag: Lag | None = None,
        session_key: SessionKey | None = None,
        recent_partials: RecentPartials | None = None,
    ) -> None:
        """
        Args:
            lag: records how long the session waits for its text.
            session_key: identifies this session and its tenant to the recognizer.
            recent_partials: records how the passes of its partials end.
        """
        self._options = options
        self._recognizer = SessionRecognizer(recognizer, options, session_key or SessionKey())
        self._clock = SampleClock(options.audio.sample_rate)
        self._lag = lag or Lag()
        self._container = ContainerDetector()
        self._decoder = Decoder(options.audio)
        self._vad = vad
        self._segmenter = Segmenter(options.vad)
        self._segmenter_lock = asyncio.Lock()  # both audio and wall time advance the segmenter
        self._endpoint = EndpointTimer(options.vad.min_silence_ms / 1000, time.monotonic())
        self._buffer = AudioBuffer()
        self._language = self._utterance_language = SpokenLanguage(options.language)
        self._speech_samples = 0
        self._utterances: list[Utterance] = []
        self._unfinished: deque[SpeechSegment] = deque()
        self._segmented = 0  # the audio before this sample is in a segment or has no speech
        self._budget = UtteranceBudget(time.monotonic())
        self._held: HeldSegment | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._released = asyncio.Event()
        self._handover_lock = asyncio.Lock()  # keeps segments and flushes in order
        self._idle = asyncio.Event()  # set while no utterance is unanswered
        self._idle.set()
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._pending: asyncio.Queue[_Pending | Flushed | None] = asyncio.Queue(MAX_PENDING)
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue(_MAX_EVENTS)
        self._tasks = asyncio.TaskGroup()
        self._recognitions: set[asyncio.Task[Recognition | Exception]] = set()
        self._partials = Partials(self._recognizer, self._events, self._clock, self._tasks, recent_partials)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._finalizer = self._tasks.create_task(self._finalize())
        self._acknowledger = self._tasks.create_task(self._acknowledge())
        self._watcher = self._tasks.create_task(self._end_without_audio())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._partials.stop()
        releasing = () if self._releasing is None else (self._releasing,)
        for task in (self._finalizer, self._acknowledger, self._watcher, *releasing, *self._recognitions):
            task.cancel()  # has no effect on tasks that are done
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def duration(self) -> float:
        """Length of the audio received, in seconds."""
        return self._clock.duration

    async def push(self, data: bytes) -> None:
        """Appends audio bytes.

        Raises:
            InvalidAudio: they are not a whole number of sample frames.
        """
        sample_frames, rest = divmod(len(data), self._options.audio.frame_bytes)
        if rest:
            audio = self._options.audio
            raise InvalidAudio(
                f"{len(data)} bytes are not a whole number of {audio.frame_bytes}-byte frames "
                f"({audio.encoding}, {audio.channels} channel{'s' if audio.channels > 1 else ''})"
            )
        if not sample_frames:
            return
        async with self._segmenter_lock:
            self._clock.advance(sample_frames)
            self._endpoint.note_arrival(sample_frames / self._options.audio.sample_rate, time.monotonic())
            await self._detect_container(data)
            await self._process(self._decoder.push(data))
            self._endpoint.note_processed(time.monotonic())

    async def flush(self) -> None:
        """Ends the utterance in progress; `Flushed` follows once everything pushed before has been transcribed.

        Where a session flushes more often than its budget allows, the utterance continues, and its end answers all of
        them.
        """
        async with self._segmenter_lock:
            await self._handle(self._segmenter.flush(self._buffer.end))
            self._segmented = self._segmenter.needed_from
            while self._held is not None and len(self._held.flushes) >= MAX_FLUSHES:
                self._released.clear()
                await self._released.wait()
            async with self._handover_lock:
                if self._held is not None:
                    self._held.flushes.append(Flushed(self.duration))
                else:
                    await self._pending.put(Flushed(self.duration))

    def set_language(self, language: str) -> None:
        """Changes the language, from the next utterance on."""
        self._language = SpokenLanguage(language)

    async def announce_end(self, reason: str, grace_seconds: float) -> None:
        """Adds an event which announces that the server will end the session."""
        await self._events.put(Terminating(reason, grace_seconds))

    async def finish(self) -> None:
        """Ends the audio. All of it is transcribed, then `Ended` ends the iteration."""
        async with self._segmenter_lock:
            self._watcher.cancel()
            await self._process(self._decoder.finish())
            # The detector takes whole windows: silence completes the last one.
            received = self._buffer.end
            await self._process(np.zeros(-received % WINDOW_SAMPLES, np.float32))
            await self._handle(self._segmenter.flush(received))
            # Unconfirmed speech is in no final, and its first sound may lie in what looks like silence.
            self._segmented = self._segmenter.needed_from
            async with self._handover_lock:
                await self._release()
                await self._pending.put(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events in order.

        Raises:
            InferenceError: an utterance could not be transcribed; the finals before it have been returned.
        """
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def _end_without_audio(self) -> None:
        """Ends the utterance in progress when the client has sent no audio for as long as silence would have taken."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            is_processing = self._segmenter_lock.locked()
            if is_processing or not self._endpoint.is_due(time.monotonic()) or self._segmenter.speech is None:
                continue
            async with self._segmenter_lock:
                await self._handle(self._segmenter.end(self._buffer.end))
                self._segmented = self._segmenter.needed_from
            metrics.ENDED_WITHOUT_AUDIO.inc()

    async def _detect_container(self, data: bytes) -> None:
        if (found := self._container.push(data)) is not None:
            metrics.CONTAINERS.labels(found).inc()
            await self._events.put(ContainerFound(found))

    async def _process(self, samples: Samples) -> None:
        for start in range(0, len(samples), _YIELD_SAMPLES):
            piece = samples[start : start + _YIELD_SAMPLES]
            self._buffer.append(piece)
            for window in self._vad.push(piece):
                await self._handle(self._segmenter.push(window))
                self._segmented = self._segmenter.needed_from
            self._update_partials()
            held = self._buffer.end if self._held is None else self._held.segment.start
            self._buffer.discard_before(min(held, self._segmenter.needed_from))
            await asyncio.sleep(0)

    async def _handle(self, events: list[SegmenterEvent]) -> None:
        for event in events:
            match event:
                case SpeechStart(position):
                    self._utterance_language = self._language
                    await self._announce(SpeechStarted(self._clock.seconds(position)))
                case SpeechEnd(position):
                    self._partials.stop()
                    await self._announce(SpeechEnded(self._clock.seconds(position)))
                case SpeechSegment():
                    self._partials.stop()
                    await self._hand_over(event)

    def _update_partials(self) -> None:
        """Updates the partials, unless an earlier utterance is not transcribed yet: the model is behind then."""
        speech, end = self._segmenter.speech, self._buffer.end
        if not self._options.partials or speech is None or self._unfinished or self._held:
            return
        if end - speech.voiced_until <= _VOICELESS_SAMPLES:
            self._partials.update(speech.start, end, self._utterance_language, self._buffer.slice)

    async def _announce(self, event: SpeechStarted | SpeechEnded) -> None:
        if self._options.vad_events:
            await self._events.put(event)

    async def _hand_over(self, segment: SpeechSegment) -> None:
        """Hands a segment over for transcription, or joins it with later ones if the session has too many."""
        language = self._utterance_language
        self._utterance_language = self._language  # the next utterance begins after a cut
        async with self._handover_lock:
            if self._held is not None and self._held.fits(segment):
                self._held.join(segment)
            else:
                await self._release()
                self._held = HeldSegment(segment, language)
                is_first_in_turn = self._releasing is None or self._releasing.done()
                if is_first_in_turn and self._budget.try_spend(self.duration, time.monotonic()):
                    await self._release()
                elif is_first_in_turn:
                    self._releasing = self._tasks.create_task(self._release_in_turn())

    async def _release_in_turn(self) -> None:
        """Hands the held segment over once the budget allows it and no utterance of the session is unanswered.

        The busier the model is, the more segments are joined.
        """
        while self._held is not None:
            await asyncio.sleep(self._budget.wait(time.monotonic()))
            await self._idle.wait()
            async with self._handover_lock:
                if self._held is not None and self._budget.try_spend(self.duration, time.monotonic()):
                    await self._release()

    async def _release(self) -> None:
        """Hands over the held segment, if there is one, followed by the answers to its flushes."""
        if (held := self._held) is None:
            return
        await self._transcribe(held.segment, held.language)
        self._held = None
        self._released.set()
        for flushed in held.flushes:
            await self._pending.put(flushed)

    async def _transcribe(self, segment: SpeechSegment, language: SpokenLanguage) -> None:
        samples = self._buffer.slice(segment.start, segment.end)
        self._speech_samples += len(samples)
        self._unfinished.append(segment)
        self._idle.clear()
        await self._slots.acquire()
        recognition = self._tasks.create_task(self._recognize(samples, language, segment))
        self._recognitions.add(recognition)
        recognition.add_done_callback(self._answered)
        self._lag.handed_over(time.monotonic())
        await self._pending.put(_Pending(segment, language, recognition))

    def _answered(self, recognition: "asyncio.Task[Recognition | Exception]") -> None:
        self._recognitions.discard(recognition)
        self._lag.answered(time.monotonic())

    async def _recognize(
        self, samples: Samples, language: SpokenLanguage, segment: SpeechSegment
    ) -> Recognition | Exception:
        """The outcome, which may be an error: it is raised after the finals before it."""
        while True:
            try:
                return await self._recognizer.recognize(samples, language, segment.speech)
            except QueueFull:
                # An admitted session is not ended because all speak at once: its text is late instead.
                await asyncio.sleep(_QUEUE_FULL_SECONDS)
            except Exception as error:
                return error

    async def _finalize(self) -> None:
        """Sends finals in the order of their utterances, whatever the order in which the model finishes them."""
        while (work := await self._pending.get()) is not None:
            if isinstance(work, Flushed):
                await self._events.put(work)
                continue
            recognition = await work.recognition
            self._slots.release()
            if isinstance(recognition, Exception):
                await self._events.put(recognition)
                return
            # Where the detector takes noise for speech, the model needs further attempts all the time.
            self._budget.charge(recognition.effort - 1)
            work.language.update(recognition)
            if recognition.text:
                utterance = self._utterance(work.segment, recognition)
                self._utterances.append(utterance)
                await self._events.put(FinalResult(utterance))
            else:
                await self._emit_suppressed(work.segment, recognition.suppressed or "empty")
            self._unfinished.popleft()
            if not self._unfinished:
                self._idle.set()
        self._acknowledger.cancel()
        if self._options.acks:
            await self._events.put(Acknowledged(self.duration, self._processed_duration()))
        await self._events.put(Ended(self.duration, self._speech_samples / MODEL_RATE, tuple(self._utterances)))
        await self._events.put(None)

    async def _acknowledge(self) -> None:
        previous, repeats = (0.0, 0.0), 0
        while self._options.acks:
            await asyncio.sleep(_ACK_SECONDS)
            now, repeats = (self.duration, self._processed_duration()), repeats + 1
            if now != previous or repeats >= _UNCHANGED_ACKS:
                await self._events.put(Acknowledged(*now))
                previous, repeats = now, 0

    async def _emit_suppressed(self, segment: SpeechSegment, reason: str) -> None:
        metrics.SUPPRESSED.labels(reason).inc()
        start, end = self._clock.seconds(segment.start), self._clock.seconds(segment.end)
        await self._events.put(SpeechSuppressed(start, end, reason))

    def _processed_duration(self) -> float:
        if self._unfinished:
            return self._clock.seconds(self._unfinished[0].start)
        return self._clock.seconds(self._segmented if self._held is None else self._held.segment.start)

    def _utterance(self, segment: SpeechSegment, recognition: Recognition) -> Utterance:
        start, end = self._clock.seconds(segment.start), self._clock.seconds(segment.end)
        return Utterance(
            text=recognition.text,
            start=start,
            end=end,
            confidence=recognition.confidence,
            language=recognition.language,
            language_probability=recognition.language_probability,
            words=tuple(_session_time(word, start, end) for word in recognition.words),
        )


def _session_time(word: Word, start: float, end: float) -> TimedWord:
    """A word of an utterance from `start` to `end`, with times from the start of the session's audio."""

    def moved(seconds: float) -> float:
        return min(end, max(start, round(start + seconds, 3)))

    return TimedWord(word=word.word, start=moved(word.start), end=moved(word.end), confidence=word.confidence)
