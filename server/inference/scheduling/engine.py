"""The engine: utterances in, recognitions out, for all sessions at once."""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from server.inference import metrics
from server.inference.batch_limits import BatchLimits
from server.inference.config import InferenceSettings
from server.inference.decoding.batch_memory import batch_limits
from server.inference.decoding.division import DEPTH, divided, joined
from server.inference.decoding.encoder_window import window
from server.inference.decoding.hypothesis import Hypothesis, UtteranceAudio
from server.inference.decoding.transcriber import Transcriber
from server.inference.errors import EngineStopped, InferenceError, PartialDropped, QueueFull, RecognitionFailed
from server.inference.recognition import TEXT_ONLY, Recognition, RecognitionOptions
from server.inference.scheduling.job import Job
from server.inference.scheduling.model_thread import ModelThread
from server.inference.weights import resolve
from server.inference.whisper.features import SAMPLE_RATE
from server.inference.whisper.precision import choose_device, choose_precision
from telemetry.logs import get_logger

log = get_logger(__name__)

_CPU_ENCODER_FRAMES: Final = 2 * 1500
"""Encoder frames in a batch on a CPU: eight utterances of 5 s, or two of 28 s, which take the base model 2.4 s on one
thread. A live final waits for the batch in progress, so an upload of speech without pauses must not make it longer."""
_FULL_WINDOW_EFFORT: Final = 4
"""The cost of an attempt with the full window, in passes with the shortened one; for the base model and half a second
of audio it is 12."""


class Engine:
    """An async context manager: the models are loaded on entering and freed on leaving.

    Any number of tasks of its event loop may call `recognize` concurrently; their utterances share batches.
    """

    def __init__(self, settings: InferenceSettings, queue_limit: int = 256) -> None:
        """`queue_limit`: the most finals that may wait for the model, and the most partials; further ones are
        refused."""
        self._settings = settings
        self._device = choose_device(settings.device)
        self._transcribers: dict[str, Transcriber] = {}
        self._model_thread = ModelThread(_cpu_limits(settings.batch_limit), queue_limit, settings.partial_share)
        self.died = asyncio.Event()
        """Set when the engine has died: it transcribes nothing any more, and its process should exit."""

    @property
    def models(self) -> frozenset[str]:
        """The model names that `recognize` accepts."""
        return frozenset(self._settings.models)

    def queue_delay_of(self, tenant: Hashable) -> float:
        """The queue delay of a tenant, in seconds: `JobQueue.queue_delay`. May be called on any thread."""
        return self._model_thread.queue_delay_of(tenant)

    def supports(self, model: str, language: str) -> bool:
        """Whether `model` exists and can transcribe `language`, an ISO 639-1 code or "auto". Only valid once
        entered."""
        if model not in self.models:
            return False
        return language == "auto" or self._transcriber(model).special_tokens.supports(language)

    def languages(self, model: str) -> tuple[str, ...]:
        """The ISO 639-1 codes of the languages that one of `models` transcribes. Only valid once entered."""
        return self._transcriber(model).special_tokens.codes

    async def recognize(
        self,
        model: str,
        samples: NDArray[np.float32],
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable = None,
    ) -> Recognition:
        """Transcribes one utterance.

        Args:
            model: one of `models`.
            samples: mono, 16 kHz, at most the model's window of 30 s.
            language: ISO 639-1, or None to have it detected.
            options: options for the utterance.
            session: the session of the utterance. Sessions take turns, however many utterances one of them has waiting;
                if it is a `SessionKey`, tenants take turns before their sessions do.

        Raises:
            QueueFull: too many utterances are waiting.
            EngineStopped: the engine stopped before the utterance was transcribed.
            RecognitionFailed: the model failed on it.
            ValueError: the model is unknown or does not know the language, or the utterance is too long.
        """
        if options.speech is None:
            options = replace(options, speech=((0.0, len(samples) / SAMPLE_RATE),))
        utterance = UtteranceAudio(samples, language, options)
        hypothesis, effort = await self._run(model, utterance, session, is_partial=False)
        return replace(_judged(hypothesis, "final"), effort=effort)

    async def recognize_partial(
        self,
        model: str,
        samples: NDArray[np.float32],
        language: str | None,
        options: RecognitionOptions = TEXT_ONLY,
        *,
        session: Hashable,
    ) -> Recognition | None:
        """Transcribes an utterance in progress, when no live final waits for the model.

        Replaces the previous partial of the session if that is still waiting. Arguments and errors are those of
        `recognize`, except that it returns None instead of raising QueueFull.

        Returns:
            None if the partial was dropped: there was no time for it, or newer audio of the session arrived.
        """
        try:
            hypothesis, _ = await self._run(model, UtteranceAudio(samples, language, options), session, is_partial=True)
        except (PartialDropped, QueueFull):
            return None
        return _judged(hypothesis, "partial")

    async def _run(
        self, model: str, utterance: UtteranceAudio, session: Hashable, *, is_partial: bool
    ) -> tuple[Hypothesis, float]:
        """The hypothesis for an utterance, and its effort (`Recognition.effort`)."""
        language = utterance.language
        if not self.supports(model, language or "auto"):
            raise ValueError(f"model {model!r} does not exist or does not transcribe {language!r}")
        transcriber = self._transcriber(model)
        seconds = len(utterance.samples) / SAMPLE_RATE
        encoder_frames = window(seconds, transcriber.full_window)
        if math.ceil(seconds * 50) > encoder_frames:
            raise ValueError(f"an utterance of {seconds:.1f} s does not fit the model's window")
        job = Job(
            # A partial is soon replaced: it is decoded greedily.
            model=self._settings.models[model] if is_partial else self._shared_name(model),
            high_beam_model=None if is_partial else self._high_beam_name(model),
            utterance=utterance,
            encoder_frames=encoder_frames,
            session=session,
            is_partial=is_partial,
        )
        hypothesis, effort = await self._done(job), 1.0
        if not is_partial:
            hypothesis, effort = await self._completed(transcriber, job, hypothesis, DEPTH)
        log.debug("utterance transcribed", kind=job.kind, model=model, audio=round(seconds, 2), **job.trace)
        return hypothesis, effort

    async def _completed(
        self, transcriber: Transcriber, job: Job, hypothesis: Hypothesis, depth: int
    ) -> tuple[Hypothesis, float]:
        """The hypothesis of a final, or of its parts if the hypothesis is incomplete, and the effort of all of it."""
        effort = _effort(job)
        first_timestamp = transcriber.special_tokens.first_timestamp
        division = divided(job.utterance, hypothesis, first_timestamp) if depth else None
        if division is None:
            return hypothesis, effort
        metrics.DIVIDED.labels(hypothesis.incomplete).inc()
        found = []
        try:
            for part in division.parts:
                seconds = len(part.utterance.samples) / SAMPLE_RATE
                of_part = job.of_part(part.utterance, window(seconds, transcriber.full_window))
                completed, more = await self._completed(transcriber, of_part, await self._done(of_part), depth - 1)
                found.append(completed)
                effort += more
        except RecognitionFailed:
            return hypothesis, effort  # it remains usable although it cannot be improved
        return joined(hypothesis, division, found, first_timestamp), effort

    async def _done(self, job: Job) -> Hypothesis:
        """The hypothesis of a job. Cancelling the call abandons the job."""
        outcome: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        job.deliver = _deliver_to(outcome)
        self._model_thread.submit(job)
        try:
            return await outcome
        finally:
            job.abandoned = True

    async def __aenter__(self) -> Self:
        loading = asyncio.wrap_future(self._model_thread.start(self._load, _setter_of(self.died)))
        try:
            await loading
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.to_thread(self._model_thread.stop)
        self._transcribers.clear()

    def _transcriber(self, model: str) -> Transcriber:
        try:
            return self._transcribers[self._shared_name(model)]
        except KeyError:
            raise EngineStopped("the engine is not running") from None

    def _beams(self, model: str) -> int:
        return self._settings.beams.get(model, 1)

    def _shared_name(self, model: str) -> str:
        """One name for all models with the same weights and beam size: their utterances share batches."""
        return _with_beams(self._settings.models[model], self._beams(model))

    def _high_beam_name(self, model: str) -> str:
        """The name of the high-beam variant, which is used while the engine is idle."""
        return _with_beams(self._settings.models[model], max(self._beams(model), self._settings.spare_beams))

    def _load(self) -> Mapping[str, Transcriber]:
        """Loads every configured model, on the worker's thread. Names for the same weights share one model."""
        # The number of threads is a property of the thread that computes.
        torch.set_num_threads(self._settings.threads or _default_threads())
        precision = choose_precision(self._device)
        for weights in sorted(set(self._settings.models.values())):
            started = time.perf_counter()
            log.info("loading model", weights=weights, device=self._device.type)
            directory = resolve(weights, self._settings.cache_dir, lambda line: log.info("preparing model", step=line))
            transcriber = Transcriber(directory, self._device, precision)
            self._transcribers[weights] = transcriber
            for model in (name for name, of_model in self._settings.models.items() if of_model == weights):
                beams = self._beams(model)
                self._transcribers[self._shared_name(model)] = transcriber.with_beams(beams)
                high_beam = max(beams, self._settings.spare_beams)
                self._transcribers[self._high_beam_name(model)] = transcriber.with_beams(high_beam)
            log.info("model loaded", weights=weights, seconds=round(time.perf_counter() - started, 2))
        if self._device.type == "cuda":
            # High-beam variants get one utterance at a time, and are not counted.
            batched = {self._shared_name(model) for model in self.models} | set(self._settings.models.values())
            models = [self._transcribers[name] for name in sorted(batched)]
            self._model_thread.limit(_cuda_limits(self._settings.batch_limit, self._device, models))
        return self._transcribers


def _with_beams(weights: str, beams: int) -> str:
    return weights if beams == 1 else f"{weights}, {beams} beams"


def _cpu_limits(rows: int) -> BatchLimits:
    rows = rows or 8
    return BatchLimits(rows=rows, encoder_frames=_CPU_ENCODER_FRAMES, waste=0.25, partial_rows=max(1, rows // 4))


def _cuda_limits(rows: int, device: torch.device, transcribers: Collection[Transcriber]) -> BatchLimits:
    """The limits that the device's memory allows now, with the models loaded."""
    torch.cuda.empty_cache()  # loading leaves unused memory in the cache
    free, _ = torch.cuda.mem_get_info(device)
    limits = batch_limits(
        free,
        [transcriber.memory for transcriber in transcribers],
        rows=rows or 32,
        full_window=max(transcriber.full_window for transcriber in transcribers),
        waste=0.5,
    )
    log.info("batches limited by memory", free_mib=free >> 20, rows=limits.rows, encoder_frames=limits.encoder_frames)
    return limits


def _default_threads() -> int:
    """Half of the cores that this process may use: with all of them, any other load stalls the forward pass.

    Eight at most, because the small steps of a decoder do not scale further.
    """
    return min(8, max(1, len(os.sched_getaffinity(0)) // 2))


def _setter_of(event: asyncio.Event) -> Callable[[], None]:
    """A function that sets an event of the running loop from another thread."""
    loop = asyncio.get_running_loop()

    def set_event() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(event.set)

    return set_event


def _deliver_to(outcome: "asyncio.Future[Hypothesis]") -> Callable[[Hypothesis | InferenceError], None]:
    """Delivers the worker's outcome to the event loop, unless the caller no longer waits."""
    loop = outcome.get_loop()

    def settle(result: Hypothesis | InferenceError) -> None:
        if outcome.done():
            return
        if isinstance(result, InferenceError):
            outcome.set_exception(result)
        else:
            outcome.set_result(result)

    def deliver(result: Hypothesis | InferenceError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no caller waits
            loop.call_soon_threadsafe(settle, result)

    return deliver


def _effort(job: Job) -> float:
    return 1 + _FULL_WINDOW_EFFORT * (job.trace.get("attempts", 1) - 1)


def _judged(hypothesis: Hypothesis, kind: str) -> Recognition:
    reason: str | None = hypothesis.invented if hypothesis.text else "empty"
    if reason is None and kind == "partial":
        # A partial with a defect that a final would be transcribed again for is not sent. Whether there is speech is
        # for the guard to decide.
        reason = hypothesis.failing if hypothesis.failing != "no_speech" else None
    if reason is not None and hypothesis.text:
        metrics.SUPPRESSED.labels(kind, reason).inc()
    text = "" if reason else hypothesis.text
    return Recognition(
        text=text,
        language=hypothesis.language,
        confidence=math.exp(hypothesis.mean_log_probability) if text else 0.0,
        no_speech_probability=hypothesis.no_speech_probability,
        suppressed=reason,
        language_probability=hypothesis.language_probability,
        words=hypothesis.words if text else (),
        certain_prefix=hypothesis.certain_prefix if text else "",
        decoded_tokens=hypothesis.decoded_tokens,
    )
