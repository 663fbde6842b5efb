"""One job, from its claim to its end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar
from uuid import UUID

from domain.errors import AudioNotStored, SessionActive, StorageUnavailable
from domain.job import format_job_id
from domain.session_id import format_session_id
from domain.transcript import DocumentVersion, Utterance
from persistence.backoff import Backoff
from persistence.errors import AudioDamaged, JobLost
from persistence.job_values import Claim, Completion, NewVersion
from persistence.worker_service import MAX_ATTEMPTS, SourceFile, WorkerPersistence, retry_seconds
from server.audio.decoder import Samples
from telemetry.logs import get_logger
from worker.audio.samples import SampleReader, format_of
from worker.audio.uploaded_file import FORMAT, DecodedFile, decoded_file
from worker.audio.waveform import waveform_of
from worker.jobs import metrics
from worker.jobs.interruption import Interruption, Stopped
from worker.jobs.model_process import JobAudio, ModelDied, ModelProcess, ModelUnavailable, RemotePlan
from worker.media.decode import Limits
from worker.media.errors import MediaTooLarge, MediaTooLong, UndecodableMedia
from worker.media.scratch import Scratch
from worker.model.recognizer import Judgement

log = get_logger(__name__)

T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0
"""How often a job looks whether it was cancelled, and whether live sessions still need the machine."""
_MOST_CAPACITY_SECONDS: Final = 600.0
"""How long a claim of a job waits for live sessions, all its waits together."""
_AT_ONCE_SECONDS: Final = 2.0
_UNSTORED_SECONDS: Final = 60.0
"""When a job is due again whose audio is not stored to its end yet."""
_UNLOADED_SECONDS: Final = 60.0
"""When a job is due again for which this worker could not load the models: another one may be able to."""


class _Canceled(Exception):
    """The job's cancellation was requested."""


class _Failed(Exception):
    """The job cannot be done, now or later. The message is for its tenant."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a job transcribes."""

    reader: SampleReader
    seconds: float
    chain: tuple[UUID, ...]
    """The sessions of the recording, oldest first."""
    key: bytes
    """Identifies the recording."""


class JobRun:
    """Does one job that this worker has claimed."""

    def __init__(
        self,
        claim: Claim,
        persistence: WorkerPersistence,
        model: ModelProcess,
        interruption: Interruption,
        scratch: Scratch,
        first_retry_seconds: float,
    ) -> None:
        self._claim = claim
        self._persistence = persistence
        self._claims = persistence.claims
        self._model = model
        self._interruption = interruption
        self._scratch = scratch
        self._first_retry_seconds = first_retry_seconds
        self.waits_for_capacity = False
        """Whether it waits because live sessions need the machine."""
        self._capacity_seconds = 0.0
        self._active_seconds = 0.0
        self._log = log.bind(
            job_id=format_job_id(claim.id),
            session_id=format_session_id(claim.session_id),
            tenant_id=str(claim.tenant_id),
        )

    async def run(self) -> None:
        """Does the job, and writes how it ended. It raises nothing but what the loop itself raises."""
        claim = self._claim
        self._log.info("job begun", kind=claim.kind, attempts=claim.attempts, done_seconds=claim.done_seconds)
        try:
            await self._end(await self._outcome())
        except JobLost:
            self._log.info("job dropped: it is another worker's, or was deleted")
        except Stopped:
            # The database is away, and the worker stops: the lease expires.
            self._log.warning("job left to its lease: the database does not answer")
        except asyncio.CancelledError:
            await self._requeue_at_once()
            raise

    async def _requeue_at_once(self) -> None:
        """Queues the job again while the worker ends and the window in progress does not."""
        try:
            async with asyncio.timeout(_AT_ONCE_SECONDS):
                await self._claims.requeue(self._claim)
        except (StorageUnavailable, JobLost, TimeoutError):
            self._log.warning("job left to its lease")

    async def _outcome(self) -> Callable[[], Awaitable[None]]:
        """Does the job. Returns the call that writes how it ended."""
        try:
            return await self._work()
        except _Canceled:
            return self._cancel
        except Stopped:
            return self._requeue_unfinished
        except AudioDamaged as error:
            return self._failing("audio_damaged", str(error))
        except AudioNotStored as error:
            return self._failing("audio_not_stored", str(error))
        except _Failed as error:
            return self._failing(error.code, str(error))
        except UndecodableMedia as error:
            return self._failing("undecodable", str(error))
        except MediaTooLong as error:
            return self._failing("too_long", str(error))
        except MediaTooLarge as error:
            return self._failing("too_large", str(error))
        except SessionActive:
            return self._requeue_unstored
        except JobLost:
            raise
        except ModelUnavailable as error:
            self._log.error("the job is queued again: the models are unavailable", reason=str(error))
            return self._requeue_unloaded
        except ModelDied as error:
            self._log.error("an attempt at the job failed", reason=str(error))
            return self._requeuing(
                "model_died", f"the process of the model ended {MAX_ATTEMPTS} times while it did this"
            )
        except Exception:
            self._log.exception("an attempt at the job failed")
            return self._requeuing("internal", f"the transcription failed {MAX_ATTEMPTS} times")

    async def _end(self, ending: Callable[[], Awaitable[None]]) -> None:
        if not self._interruption.is_requested:
            await self._retrying(ending)
            return
        try:
            await ending()
        except StorageUnavailable as error:
            raise Stopped from error

    # The work

    async def _work(self) -> Callable[[], Awaitable[None]]:
        await self._check()
        await self._check_model()
        async with AsyncExitStack() as stack:
            opened = await self._open(stack)
            self._claim, is_canceled = await self._retrying(
                lambda: self._claims.begin(self._claim, opened.chain, opened.key, opened.seconds)
            )
            _raise_if(is_canceled)
            audio = self._audio(opened.reader)
            plan = await self._plan(audio)
            await self._transcribe(plan, audio)
            return await self._store(plan, opened.seconds)

    async def _open(self, stack: AsyncExitStack) -> _Opened:
        if self._claim.kind == "upload":
            decoded, source = await self._retrying(lambda: self._decode(stack))
            await self._retrying(lambda: self._keep_waveform(decoded, source))
            return _Opened(SampleReader(decoded, FORMAT), decoded.seconds, (self._claim.session_id,), source.identity)
        file = await self._retrying(lambda: self._persistence.recording(self._claim))
        reader = SampleReader(file, format_of(file.wav.encoding, file.wav.sample_rate, file.wav.channels))
        return _Opened(reader, file.seconds, file.chain, file.chain_key)

    async def _decode(self, stack: AsyncExitStack) -> tuple[DecodedFile, SourceFile]:
        """Decodes an uploaded file. The end of the worker and a cancellation end it."""
        source = await self._persistence.source(self._claim)
        opening = asyncio.create_task(
            stack.enter_async_context(decoded_file(source, self._scratch, Limits())), name="decoding"
        )
        try:
            while not (await asyncio.wait({opening}, timeout=_LOOK_SECONDS))[0]:
                await self._check()
        except BaseException:
            opening.cancel()
            await asyncio.wait({opening})
            raise
        return opening.result(), source

    async def _keep_waveform(self, file: DecodedFile, source: SourceFile) -> None:
        """Stores the waveform of an uploaded file, which no server decodes, before the long work begins."""
        waveforms, session_id = self._persistence.waveforms, self._claim.session_id
        if await waveforms.read(session_id, source.identity) is None:
            await waveforms.write(session_id, source.identity, await waveform_of(file))

    def _audio(self, reader: SampleReader) -> JobAudio:

        async def read(first: int, last: int) -> Samples:
            return await self._retrying(lambda: reader.read(first, last))

        return JobAudio(reader.length, read, self._interruption)

    def _watched(self, audio: JobAudio) -> JobAudio:
        """The same audio, whose reading ends with a cancellation: listening to hours takes minutes."""
        looked = time.monotonic()

        async def read(first: int, last: int) -> Samples:
            nonlocal looked
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                await self._check()
            return await audio.read(first, last)

        return JobAudio(audio.length, read, self._interruption)

    async def _check_model(self) -> None:
        model = self._claim.request.model
        models = await self._model.models()
        if model not in models:
            names = ", ".join(sorted(models))
            raise _Failed("invalid_model", f"there is no model {model!r}; the models are: {names}")
        language = self._claim.request.language
        if not await self._model.supports(model, language):
            raise _Failed("invalid_language", f"the model {model!r} does not transcribe {language!r}")

    async def _plan(self, audio: JobAudio) -> RemotePlan:
        request, known = self._claim.request, self._claim.plan
        if known is not None:
            try:
                return await self._model.plan_of(known)
            except ValueError:
                self._log.warning("the plan of an earlier attempt cannot be read: the job begins anew")
                self._claim = await self._retrying(lambda: self._claims.restart(self._claim))
        plan = await self._model.listen(request, self._watched(audio))
        _raise_if(await self._retrying(lambda: self._claims.store_plan(self._claim, plan.to_json())))
        return plan

    async def _transcribe(self, plan: RemotePlan, audio: JobAudio) -> None:
        claim = self._claim
        index = 0
        if claim.version is not None and claim.done_windows:
            version = claim.version
            index = len(await self._retrying(lambda: self._claims.utterances(claim, version)))
        for number in range(claim.done_windows, len(plan.ends)):
            self._interruption.check()
            await self._wait_for_capacity()
            began = time.monotonic()
            utterances = await self._model.recognize(claim.request, plan, number, audio)
            self._active_seconds += time.monotonic() - began
            await self._store_window(plan.ends[number], number + 1, index, utterances)
            index += len(utterances)

    async def _store_window(self, end: float, windows: int, index: int, utterances: list[Utterance]) -> None:
        seconds = end - self._claim.done_seconds
        rate = seconds / self._active_seconds if self._active_seconds > 0 and seconds > 0 else self._claim.rate
        version, is_canceled = await self._retrying(
            lambda: self._claims.store_window(
                self._claim,
                done_seconds=end,
                windows_before=max(0, windows - 1),
                done_windows=windows,
                rate=rate,
                first_index=index,
                utterances=utterances,
            )
        )
        if self._claim.version is None:
            self._claim = replace(self._claim, version=version)
        _raise_if(is_canceled)

    async def _store(self, plan: RemotePlan, seconds: float) -> Callable[[], Awaitable[None]]:
        _raise_if(await self._retrying(lambda: self._claims.note_step(self._claim, "storing")))
        if self._claim.version is None:  # nobody speaks in the recording
            await self._store_window(0.0, 0, 0, [])
        claim, number = self._claim, self._claim.version
        if number is None:
            raise RuntimeError("a job that has stored a window has no version")
        # The document is made of the rows: it is the same, however often the job was interrupted.
        utterances = await self._retrying(lambda: self._claims.utterances(claim, number))
        judgement = await self._judge(plan, utterances)
        if judgement.outcome == "no_speech":
            metrics.verdicts.labels("no_speech").inc()
            raise _Failed("no_speech", judgement.reason)
        document = DocumentVersion(number, claim.request.model, "upload" if claim.kind == "upload" else "enhanced")
        uri = await self._retrying(
            lambda: self._persistence.put_transcript(claim, document, plan.language, seconds, utterances)
        )
        new = NewVersion(
            version=number,
            model=claim.request.model,
            language=plan.language,
            audio_seconds=seconds,
            utterance_count=len(utterances),
            word_count=sum(each.word_count for each in utterances),
            uri=uri,
            verdict=judgement.outcome,
            verdict_reason=judgement.reason or None,
        )

        async def complete() -> None:
            await self._complete(new, judgement, seconds)

        return complete

    async def _judge(self, plan: RemotePlan, utterances: list[Utterance]) -> Judgement:
        live: list[Utterance] = []
        if self._claim.kind == "enhance":
            live = await self._retrying(lambda: self._persistence.live_utterances(self._claim))
        language = self._claim.session_language
        return await self._model.judge(plan, utterances, live, language)

    # Waiting

    async def _check(self) -> None:
        """Raises what ends the work: the end of the worker, a cancellation, the loss of the job."""
        self._interruption.check()
        _raise_if(await self._retrying(lambda: self._claims.is_canceled(self._claim)))

    async def _wait_for_capacity(self) -> None:
        """Waits while live sessions need the machine, but not for long in all: no job starves."""
        try:
            await self._wait_for_live_sessions()
        finally:
            self.waits_for_capacity = False

    async def _wait_for_live_sessions(self) -> None:
        began = time.monotonic()
        while self._capacity_seconds < _MOST_CAPACITY_SECONDS:
            if not await self._retrying(self._claims.is_machine_behind):
                return
            if not self.waits_for_capacity:
                self.waits_for_capacity = True
                self._log.info("job waits: live sessions need the machine")
            _raise_if(await self._retrying(lambda: self._claims.note_step(self._claim, "capacity")))
            await self._interruption.pause(_LOOK_SECONDS)
            waited, began = time.monotonic() - began, time.monotonic()
            self._capacity_seconds += waited
            metrics.capacity_wait_seconds.inc(waited)

    async def _retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls it until Postgres and S3 answer. An outage of theirs is no attempt at the job.

        Raises:
            Stopped: the worker stops meanwhile.
        """
        backoff = Backoff()
        is_waiting = False
        while True:
            try:
                found = await call()
            except StorageUnavailable as error:
                if not is_waiting:
                    is_waiting = True
                    self._log.warning("job waits", component=error.component, reason=str(error))
                await self._note_outage()
                await self._interruption.pause(backoff.next())
            else:
                if is_waiting:
                    self._log.info("job continues")
                return found

    async def _note_outage(self) -> None:
        try:
            _raise_if(await self._claims.note_step(self._claim, "retry"))
        except StorageUnavailable:
            return

    # Endings

    async def _complete(self, new: NewVersion, judgement: Judgement, seconds: float) -> None:
        completion = await self._claims.complete(self._claim, new)
        if completion is Completion.CANCELED:
            await self._cancel()
            return
        if completion is Completion.CHANGED:
            self._log.warning("a session of the joined recording was deleted: the job begins anew")
            await self._claims.requeue(self._claim)
            return
        metrics.ended.labels("completed", "").inc()
        metrics.verdicts.labels(judgement.defect or "accepted").inc()
        if self._active_seconds > 0:
            metrics.rate.observe((seconds - self._claim.done_seconds) / self._active_seconds)
        self._log.info("job completed", version=new.version, verdict=new.verdict, utterances=new.utterance_count)

    def _failing(self, code: str, message: str) -> Callable[[], Awaitable[None]]:
        async def fail() -> None:
            await self._claims.fail(self._claim, code, message)
            metrics.ended.labels("failed", code).inc()
            self._log.warning("job failed", code=code)
            await self._remove_document()

        return fail

    async def _cancel(self) -> None:
        await self._claims.cancel(self._claim)
        metrics.ended.labels("canceled", "").inc()
        self._log.info("job canceled")
        await self._remove_document()

    async def _requeue_unfinished(self) -> None:
        await self._claims.requeue(self._claim)
        self._log.info("job queued again: the worker stops")

    async def _requeue_unstored(self) -> None:
        await self._claims.requeue(self._claim, _UNSTORED_SECONDS)
        self._log.info("job queued again: its audio is not stored to its end yet")

    async def _requeue_unloaded(self) -> None:
        await self._claims.requeue(self._claim, _UNLOADED_SECONDS)
        # The place stays taken for a moment: otherwise the worker would try again for one queued job after another.
        with suppress(Stopped):
            await self._interruption.pause(self._first_retry_seconds)

    def _requeuing(self, code: str, message: str) -> Callable[[], Awaitable[None]]:
        """Queues the job again after an attempt that counts; the last one fails it."""

        async def requeue() -> None:
            metrics.attempts_failed.inc()
            attempts = await self._claims.attempts(self._claim)
            if attempts >= MAX_ATTEMPTS:
                await self._failing(code, message)()
                return
            seconds = retry_seconds(attempts, self._first_retry_seconds)
            await self._claims.requeue(self._claim, seconds, is_counted=True)

        return requeue

    async def _remove_document(self) -> None:
        """Removes what an earlier attempt may have stored: no row refers to it, and its number is not used again."""
        if self._claim.version is not None:
            await self._persistence.remove_transcript(self._claim.session_id, self._claim.version)


def _raise_if(is_canceled: bool) -> None:
    if is_canceled:
        raise _Canceled
