"""One stream: bytes in, events out."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from server.audio.container import ContainerDetector
from server.audio.decoder import MODEL_RATE, Decoder, Samples
from server.inference.errors import QueueFull
from server.inference.recognition import TEXT_ONLY, Recognition, RecognitionOptions, Word
from server.inference.scheduling.owner import Owner
from server.session import metrics
from server.session.budget import MOST_FLUSHES, Held, UtteranceBudget
from server.session.buffer import AudioBuffer
from server.session.endpoint_timer import TICK_SECONDS, EndpointTimer
from server.session.errors import InvalidAudio
from server.session.events import (
    Acknowledged,
    ContainerFound,
    Ended,
    Event,
    Final,
    Flushed,
    Partial,
    SpeechEnded,
    SpeechStarted,
    SpeechSuppressed,
    Terminating,
)
from server.session.lag import Lag
from server.session.language import SpokenLanguage
from server.session.options import SessionOptions
from server.session.partials import Partials
from server.session.segmenter import Segment, Segmenter, SpeechEnd, SpeechSegment, SpeechStart
from server.vad.silero import WINDOW_SAMPLES, VadStream

MAX_PENDING = 4
"""A session's utterances at the model or waiting for it before `push` waits for one of them: 112 s of audio at most."""
_MAX_EVENTS = 64
"""Events waiting for a reader before the session waits for the reader."""
_ACK_SECONDS = 1.0
"""Between two acknowledgements, at least."""
_UNCHANGED_ACKS = 5
"""Every so many of these intervals one goes out with no news of the session's own: its owner may have some to add."""
_BREATH_SAMPLES = 8 * WINDOW_SAMPLES
"""Judging a window takes 0.1 ms of the event loop: after so many others get their turn."""
_VOICELESS_SAMPLES = 4 * WINDOW_SAMPLES
"""After so much silence an utterance is likely to be over: a partial now would only delay its final."""
_QUEUE_FULL_SECONDS = 0.25
"""How long a session waits before it asks an engine again that had no room."""


class Recognizer(Protocol):
    """What turns an utterance into text."""

    async def recognize(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable = None,
    ) -> Recognition:
        """Transcribes mono 16 kHz audio; a `language` of None is detected. Cancelling the call drops the work."""

    async def recognize_partial(
        self,
        model: str,
        samples: Samples,
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable,
    ) -> Recognition | None:
        """Transcribes the beginning of an utterance if there is time for it, and gives None if there is not."""


@dataclass(frozen=True, slots=True)
class _Pending:
    utterance: SpeechSegment
    language: SpokenLanguage
    recognition: "asyncio.Task[Recognition | Exception]"


class Session:
    """One stream's life: `push`, `flush` and `finish` on one side, `async for event in session` on the other.

    An async context manager, because it owns tasks: leaving it drops whatever is not finished. One caller pushes, one
    iterates; the iteration ends after `finish`. Both sides wait when the other is slow, so that memory is bounded.
    """

    def __init__(
        self,
        options: SessionOptions,
        vad: VadStream,
        recognizer: Recognizer,
        lag: Lag | None = None,
        owner: Owner | None = None,
    ) -> None:
        """
        Args:
            lag: where the session notes how long it waits for its text.
            owner: by which the recognizer tells this session, and its tenant, from others.
        """
        self._options = options
        self._owner = owner or Owner()
        self._recognizer = recognizer
        self._lag = lag or Lag()
        self._container = ContainerDetector()
        self._decoder = Decoder(options.audio)
        self._vad = vad
        self._segmenter = Segmenter(options.vad)
        self._turn = asyncio.Lock()  # Of whoever moves the segmenter on: the audio, or the time without any.
        self._endpoint = EndpointTimer(options.vad.min_silence_ms / 1000, time.monotonic())
        self._buffer = AudioBuffer()
        self._frames = 0
        self._language = self._utterance_language = SpokenLanguage(options.language)
        self._speech_samples = 0
        self._finals: list[Final] = []
        self._unfinished: deque[SpeechSegment] = deque()
        self._segmented = 0  # Audio before it is in an utterance or in none.
        self._budget = UtteranceBudget(time.monotonic())
        self._held: Held | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._released = asyncio.Event()
        self._handing = asyncio.Lock()  # utterances and answers go to the finalizer in their order
        self._idle = asyncio.Event()  # no utterance is unanswered
        self._idle.set()
        self._slots = asyncio.Semaphore(MAX_PENDING)
        self._pending: asyncio.Queue[_Pending | Flushed | None] = asyncio.Queue(MAX_PENDING)
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue(_MAX_EVENTS)
        self._tasks = asyncio.TaskGroup()
        self._recognitions: set[asyncio.Task[Recognition | Exception]] = set()
        self._partials = Partials(self._recognize_partial, self._tell_partial, self._tasks)

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
            task.cancel()  # does nothing to what is done
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def duration(self) -> float:
        """Length of the audio received, in seconds."""
        return self._frames / self._options.audio.sample_rate

    async def push(self, data: bytes) -> None:
        """Takes the next audio bytes.

        Raises:
            InvalidAudio: they are not a whole number of frames.
        """
        frames, rest = divmod(len(data), self._options.audio.frame_bytes)
        if rest:
            audio = self._options.audio
            raise InvalidAudio(
                f"{len(data)} bytes are not a whole number of {audio.frame_bytes}-byte frames "
                f"({audio.encoding}, {audio.channels} channel{'s' if audio.channels > 1 else ''})"
            )
        if not frames:
            return
        async with self._turn:
            self._frames += frames
            self._endpoint.arrived(frames / self._options.audio.sample_rate, time.monotonic())
            await self._look_for_container(data)
            await self._hear(self._decoder.push(data))
            self._endpoint.processed(time.monotonic())

    async def flush(self) -> None:
        """Ends the utterance in progress; `Flushed` follows once everything pushed before has been transcribed.

        Where a session flushes more often than its budget allows, the utterance goes on: its end answers all of them.
        """
        async with self._turn:
            await self._act(self._segmenter.flush(self._buffer.end))
            self._segmented = self._segmenter.needed_from
            while self._held is not None and len(self._held.flushes) >= MOST_FLUSHES:
                self._released.clear()
                await self._released.wait()
            async with self._handing:
                if self._held is not None:
                    self._held.flushes.append(Flushed(self.duration))
                else:
                    await self._pending.put(Flushed(self.duration))

    def set_language(self, language: str) -> None:
        """Changes the language from the next utterance on."""
        self._language = SpokenLanguage(language)

    async def announce_end(self, reason: str, grace_seconds: float) -> None:
        """Says between the other events that the session will be ended."""
        await self._events.put(Terminating(reason, grace_seconds))

    async def finish(self) -> None:
        """Ends the audio. What was pushed is transcribed to its last word, then `Ended` ends the iteration."""
        async with self._turn:
            self._watcher.cancel()
            await self._hear(self._decoder.finish())
            # The model judges whole windows: silence completes the last one.
            received = self._buffer.end
            await self._hear(np.zeros(-received % WINDOW_SAMPLES, np.float32))
            await self._act(self._segmenter.flush(received))
            # Speech that has hardly begun is in no final, and its first sound may be in what seems silence yet.
            self._segmented = self._segmenter.needed_from
            async with self._handing:
                await self._release()
                await self._pending.put(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events in order.

        Raises:
            InferenceError: an utterance could not be transcribed; the finals before it have been given.
        """
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def _end_without_audio(self) -> None:
        """Ends the utterance in progress once its client has sent no audio for so long that silence would have."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._turn.locked() or not self._endpoint.is_due(time.monotonic()) or self._segmenter.speech is None:
                continue
            async with self._turn:
                await self._act(self._segmenter.end(self._buffer.end))
                self._segmented = self._segmenter.needed_from
            metrics.ENDED_WITHOUT_AUDIO.inc()

    async def _look_for_container(self, data: bytes) -> None:
        if (found := self._container.push(data)) is not None:
            metrics.CONTAINERS.labels(found).inc()
            await self._events.put(ContainerFound(found))

    async def _hear(self, samples: Samples) -> None:
        for start in range(0, len(samples), _BREATH_SAMPLES):
            piece = samples[start : start + _BREATH_SAMPLES]
            self._buffer.append(piece)
            for window in self._vad.push(piece):
                await self._act(self._segmenter.push(window))
                self._segmented = self._segmenter.needed_from
            self._hear_partially()
            held = self._buffer.end if self._held is None else self._held.utterance.start
            self._buffer.discard_before(min(held, self._segmenter.needed_from))
            await asyncio.sleep(0)

    async def _act(self, segments: list[Segment]) -> None:
        for segment in segments:
            match segment:
                case SpeechStart(position):
                    self._utterance_language = self._language
                    await self._announce(SpeechStarted(self._seconds(position)))
                case SpeechEnd(position):
                    self._partials.stop()
                    await self._announce(SpeechEnded(self._seconds(position)))
                case SpeechSegment():
                    self._partials.stop()
                    await self._hand_over(segment)

    def _hear_partially(self) -> None:
        """Has the utterance in progress tried, unless an earlier one is not through yet: the model is behind then."""
        speech, end = self._segmenter.speech, self._buffer.end
        if not self._options.partials or speech is None or self._unfinished or self._held or self._events.full():
            return
        if end - speech.voiced_until <= _VOICELESS_SAMPLES:
            self._partials.hear(speech.start, end, self._buffer.slice)

    async def _recognize_partial(self, samples: Samples, draft: tuple[int, ...]) -> Recognition | None:
        language = self._utterance_language
        return await self._recognizer.recognize_partial(
            self._options.model,
            samples,
            language.told,
            replace(self._recognition_options(language), draft=draft),
            session=self._owner,
        )

    def _recognition_options(self, language: SpokenLanguage) -> RecognitionOptions:
        """What partials and finals have in common."""
        return RecognitionOptions(vocabulary=self._options.vocabulary, expected_language=language.expected)

    def _tell_partial(self, text: str, start: int, end: int) -> bool:
        if self._events.full():
            return False  # nobody waits for the next: whoever does not read gets the one after it
        self._events.put_nowait(Partial(text, self._seconds(start), self._seconds(end)))
        return True

    async def _announce(self, event: SpeechStarted | SpeechEnded) -> None:
        if self._options.vad_events:
            await self._events.put(event)

    async def _hand_over(self, utterance: SpeechSegment) -> None:
        """Has an utterance transcribed, or joins it with those that follow where there are too many."""
        language = self._utterance_language
        self._utterance_language = self._language  # what follows a cut is the next utterance
        async with self._handing:
            if self._held is not None and self._held.takes(utterance):
                self._held.join(utterance)
            else:
                await self._release()
                self._held = Held(utterance, language)
                is_first_in_turn = self._releasing is None or self._releasing.done()
                if is_first_in_turn and self._budget.take(self.duration, time.monotonic()):
                    await self._release()
                elif is_first_in_turn:
                    self._releasing = self._tasks.create_task(self._release_in_turn())

    async def _release_in_turn(self) -> None:
        """Has what is held transcribed when the budget allows it and nothing of the session waits for the model: the
        busier that is, the more is joined."""
        while self._held is not None:
            await asyncio.sleep(self._budget.wait(time.monotonic()))
            await self._idle.wait()
            async with self._handing:
                if self._held is not None and self._budget.take(self.duration, time.monotonic()):
                    await self._release()

    async def _release(self) -> None:
        """Hands over what is held, if anything is, and the answers to its flushes after it."""
        if (held := self._held) is None:
            return
        await self._transcribe(held.utterance, held.language)
        self._held = None
        self._released.set()
        for flushed in held.flushes:
            await self._pending.put(flushed)

    async def _transcribe(self, utterance: SpeechSegment, language: SpokenLanguage) -> None:
        samples = self._buffer.slice(utterance.start, utterance.end)
        self._speech_samples += len(samples)
        self._unfinished.append(utterance)
        self._idle.clear()
        await self._slots.acquire()
        recognition = self._tasks.create_task(self._recognize(samples, language, utterance))
        self._recognitions.add(recognition)
        recognition.add_done_callback(self._answered)
        self._lag.handed_over(time.monotonic())
        await self._pending.put(_Pending(utterance, language, recognition))

    def _answered(self, recognition: "asyncio.Task[Recognition | Exception]") -> None:
        self._recognitions.discard(recognition)
        self._lag.answered(time.monotonic())

    async def _recognize(
        self, samples: Samples, language: SpokenLanguage, utterance: SpeechSegment
    ) -> Recognition | Exception:
        """The outcome, a failure included: its turn to be told comes after the finals before it."""
        speech = tuple((start / MODEL_RATE, end / MODEL_RATE) for start, end in utterance.speech)
        options = replace(self._recognition_options(language), words=self._options.words, speech=speech)
        while True:
            try:
                return await self._recognizer.recognize(
                    self._options.model, samples, language.told, options, session=self._owner
                )
            except QueueFull:
                # A session that was let in is not given up because all of them speak at once: its text comes later.
                await asyncio.sleep(_QUEUE_FULL_SECONDS)
            except Exception as error:
                return error

    async def _finalize(self) -> None:
        """Sends finals in the order of their utterances, whatever order the model finishes them in."""
        while (work := await self._pending.get()) is not None:
            if isinstance(work, Flushed):
                await self._events.put(work)
                continue
            recognition = await work.recognition
            self._slots.release()
            if isinstance(recognition, Exception):
                await self._events.put(recognition)
                return
            # Where everything is taken for speech the model tries again all the time.
            self._budget.charge(recognition.effort - 1)
            work.language.heard(recognition)
            if recognition.text:
                final = self._final(work.utterance, recognition)
                self._finals.append(final)
                await self._events.put(final)
            else:
                await self._tell_suppressed(work.utterance, recognition.suppressed or "empty")
            self._unfinished.popleft()
            if not self._unfinished:
                self._idle.set()
        self._acknowledger.cancel()
        if self._options.acks:
            await self._events.put(Acknowledged(self.duration, self._processed_duration()))
        await self._events.put(Ended(self.duration, self._speech_samples / MODEL_RATE, tuple(self._finals)))
        await self._events.put(None)

    async def _acknowledge(self) -> None:
        said, repeats = (0.0, 0.0), 0
        while self._options.acks:
            await asyncio.sleep(_ACK_SECONDS)
            now, repeats = (self.duration, self._processed_duration()), repeats + 1
            if now != said or repeats >= _UNCHANGED_ACKS:
                await self._events.put(Acknowledged(*now))
                said, repeats = now, 0

    async def _tell_suppressed(self, utterance: SpeechSegment, reason: str) -> None:
        metrics.SUPPRESSED.labels(reason).inc()
        start, end = self._seconds(utterance.start), self._seconds(utterance.end)
        await self._events.put(SpeechSuppressed(start, end, reason))

    def _processed_duration(self) -> float:
        if self._unfinished:
            return self._seconds(self._unfinished[0].start)
        return self._seconds(self._segmented if self._held is None else self._held.utterance.start)

    def _final(self, utterance: SpeechSegment, recognition: Recognition) -> Final:
        start, end = self._seconds(utterance.start), self._seconds(utterance.end)
        return Final(
            text=recognition.text,
            start=start,
            end=end,
            confidence=recognition.confidence,
            language=recognition.language,
            language_probability=recognition.language_probability,
            words=tuple(_later(word, start, end) for word in recognition.words),
        )

    def _seconds(self, position: int) -> float:
        # The last window is completed with silence, which is no audio of the session's.
        return min(position / MODEL_RATE, self.duration)


def _later(word: Word, start: float, end: float) -> Word:
    """A word of an utterance from `start` to `end`, on the session's time."""

    def later(seconds: float) -> float:
        return min(end, max(start, round(start + seconds, 3)))

    return replace(word, start=later(word.start), end=later(word.end))
