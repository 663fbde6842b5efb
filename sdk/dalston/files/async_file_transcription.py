"""The transcription of a file, for asyncio."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

from dalston import messages
from dalston.calls import ATTEMPT_SECONDS, Calls
from dalston.errors import (
    Busy,
    DalstonError,
    DeadlineExceeded,
    JobCanceled,
    JobFailed,
    NotFound,
    PermissionDenied,
    SessionActive,
    TooManyJobs,
    Unavailable,
)
from dalston.failures import is_unreached
from dalston.files.file_source import OpenFile
from dalston.files.file_stream import FileStream, send_file
from dalston.files.outage import Outage
from dalston.options import FileSettings, FileSource
from dalston.records import FileProgress, Job, JobStatus, Transcript, Utterance
from dalston.v1 import file_pb2, job_pb2, session_pb2

_PAGE = 1000
_ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED)
_SHORTEST_POLL, _LONGEST_POLL = 1.0, 5.0
"""Seconds between two reads of the job; the time grows with the wait."""
_SILENT_POLL = 60.0
"""The same while the stream sends the utterances and the caller does not ask for the progress."""
_LAST_MESSAGES_SECONDS = 10.0
"""For the stream to end once its job has ended."""
_NO_TRANSCRIPT = ("TRANSCRIPT_NOT_FOUND", "TRANSCRIPT_NOT_STORED", "SESSION_ACTIVE")
_VERSION = 1
"""The first version of the transcript, which the job of a file makes."""


class AsyncFileTranscription:
    """Iterate over it for the utterances as they are transcribed, or await it for the transcript.

    Entering it, iterating over it or `submit` sends the file. From then on `job` and `session_id` are set. Leaving it
    does not cancel the job: `client.jobs.get(job.id)` finds it later, and `client.sessions.transcript(session_id)` its
    transcript.

    After a lost connection it finds the job again: as long as the service has not confirmed the job, it sends the file
    again, if the source can be rewound; the service recognises the same file. After that it reads the state of the job
    and its utterances, until `give_up_after` seconds have passed without success.

    These raise:
        UnsupportedMedia, FileTooBig: the service does not take the file.
        InvalidRequest: an option is invalid.
        Busy: the service cannot take the file now; `TooManyJobs` if too many jobs of the tenant are queued.
        Unavailable: the service could not be reached, or a lost connection could not be restored.
        JobFailed, JobCanceled: the job ended without a transcript; the utterances so far have been yielded.
        OSError: the file cannot be read.
    """

    def __init__(self, calls: Calls, source: FileSource, settings: FileSettings) -> None:
        self._calls = calls
        self._settings = settings
        self._file = OpenFile(source)
        self._config = _config(settings, self._file.name)
        self._outage = Outage()
        self._stream: FileStream | None = None
        self._job: Job | None = None
        self._utterances: list[Utterance] = []
        self._next_index = 0
        self._sent = 0
        self._was_taken = False
        """Whether the service has taken a part of the file."""
        self._can_poll = True
        """Whether the key may read jobs."""
        self._began_to_wait = 0.0
        self._last_poll = 0.0
        self._closed = asyncio.Event()
        self._is_entered = False
        self._is_over = False

    @property
    def job(self) -> Job | None:
        """The job as it was last seen; None before the file is sent."""
        return self._job

    @property
    def session_id(self) -> str | None:
        """The session that stores the file and its transcript; None before the file is sent."""
        return self._job.session_id if self._job else None

    @property
    def transcript(self) -> Transcript:
        """The transcript so far; `session_id` is empty before the file is sent."""
        words: Counter[str] = Counter()
        for utterance in self._utterances:
            if utterance.language:
                words[utterance.language] += len(utterance.text.split())
        requested = self._job.language if self._job else self._config.language or "auto"
        return Transcript(
            session_id=self.session_id or "",
            language=words.most_common(1)[0][0] if words else requested,
            duration=self._job.audio_duration_seconds if self._job else 0.0,
            text=" ".join(utterance.text for utterance in self._utterances),
            utterances=tuple(self._utterances),
        )

    async def submit(self) -> Job:
        """Sends the file, unless it is sent already. Returns the job, which continues without this client."""
        self._closed.clear()
        job = await self._begin()
        if not self._is_entered:
            await self._leave_stream()
        return job

    async def wait(self) -> Transcript:
        """Waits for the remaining utterances. Returns the transcript."""
        async for _ in self:
            pass
        return self.transcript

    def __await__(self) -> Generator[Any, None, Transcript]:
        return self.wait().__await__()

    async def close(self) -> None:
        """Leaves the job, which continues. An iteration in progress raises RuntimeError; a later one finds the job."""
        self._is_entered = False
        self._closed.set()
        await self._leave_stream()

    async def __aiter__(self) -> AsyncIterator[Utterance]:
        self._closed.clear()
        try:
            await self._begin()
            while not self._is_over:
                async with aclosing(self._streamed() if self._stream else self._polled()) as utterances:
                    async for utterance in utterances:
                        yield utterance
        finally:
            if not self._is_entered:
                await self._leave_stream()
        self._check_completed()

    async def __aenter__(self) -> Self:
        self._closed.clear()
        await self._begin()
        self._is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _leave_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RuntimeError("the transcription was closed; its job continues")

    async def _sleep(self, seconds: float) -> None:
        """Waits, unless the transcription is closed meanwhile; then it raises RuntimeError."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        self._check_open()

    async def _begin(self) -> Job:
        self._calls.check_open()
        if self._job is None:
            await self._send()
        assert self._job is not None  # noqa: S101 - for the type checker
        return self._job

    async def _send(self) -> None:
        """Sends the file, again if the connection is lost, until its job exists."""
        while True:
            self._sent = 0
            try:
                async with self._file.opened() as pieces:
                    self._stream, job = await send_file(self._calls, self._config, pieces, self._on_sent)
            except (Unavailable, Busy) as error:
                if isinstance(error, TooManyJobs) or not self._file.is_whole:
                    raise
                await self._pause(error)
            else:
                self._outage.end()
                self._began_to_wait = self._last_poll = _now()
                self._take_job(job)
                return

    async def _pause(self, error: DalstonError) -> None:
        """Waits until the file is to be sent again.

        Raises:
            DalstonError: the error, if the time to retry is over.
        """
        self._was_taken = self._was_taken or (self._sent > 0 and _is_lost(error))
        settings = self._settings
        attempt = self._outage.next_attempt(error, settings.give_up_after if self._was_taken else settings.wait)
        if attempt is None:
            raise error
        if settings.on_reconnect is not None:
            settings.on_reconnect(attempt)
        await self._sleep(attempt.delay)

    async def _streamed(self) -> AsyncGenerator[Utterance, None]:
        """Yields the utterances that the stream sends, until it ends or is lost."""
        stream = self._stream
        try:
            while stream is not None:
                try:
                    response = await stream.read(self._time_to_poll())
                except TimeoutError:
                    await self._poll_beside_stream()
                    continue
                if response is None:
                    break
                if response.HasField("job"):
                    self._take_job(response.job)
                elif (utterance := self._accept(response.utterance)) is not None:
                    yield utterance
                if self._time_to_poll() == 0:
                    await self._poll_beside_stream()
        except (Unavailable, Busy) as error:
            self._check_open()
            self._outage.next_attempt(error, self._settings.give_up_after)
        else:
            self._is_over = self._has_ended
        await self._leave_stream()

    def _time_to_poll(self) -> float | None:
        """Seconds until the job should be read; None: never."""
        if not self._can_poll:
            return None
        if self._has_ended:
            seconds = _LAST_MESSAGES_SECONDS
        else:
            seconds = _SILENT_POLL if self._settings.on_progress is None else self._poll_seconds
        return max(0.0, self._last_poll + seconds - _now())

    @property
    def _poll_seconds(self) -> float:
        return min(max(_SHORTEST_POLL, (_now() - self._began_to_wait) / 20), _LONGEST_POLL)

    async def _poll_beside_stream(self) -> None:
        """Reads the job. Raises `DeadlineExceeded` if it has ended and the stream has not."""
        if self._has_ended:
            raise DeadlineExceeded("the service did not send the end of the transcript")
        try:
            self._take_job(await self._read_job())
        except (Unavailable, Busy):
            pass  # The stream itself will notice.
        except (PermissionDenied, NotFound):
            self._can_poll = False
        self._last_poll = _now()

    async def _polled(self) -> AsyncGenerator[Utterance, None]:
        """Yields the utterances as they are stored, until the job has ended."""
        while not self._is_over:
            pause = self._poll_seconds
            try:
                self._take_job(await self._read_job())
                is_last = self._has_ended
                async with aclosing(self._stored()) as utterances:
                    async for utterance in utterances:
                        yield utterance
            except (Unavailable, Busy) as error:
                pause = self._time_to_reconnect(error)
            except PermissionDenied as error:
                # A key with the scope `realtime` may send the file again, and receives the same job.
                if not self._file.is_whole:
                    raise
                await self._sleep(self._time_to_reconnect(error))
                await self._send()
                return
            else:
                self._outage.end()
                self._is_over = is_last
            if not self._is_over:
                await self._sleep(pause)

    def _time_to_reconnect(self, error: DalstonError) -> float:
        attempt = self._outage.next_attempt(error, self._settings.give_up_after)
        if attempt is None:
            name = self._job.id if self._job else ""
            raise Unavailable(f"the connection to job {name} could not be restored: {error.message}") from error
        if self._settings.on_reconnect is not None:
            self._settings.on_reconnect(attempt)
        return attempt.delay

    async def _read_job(self) -> job_pb2.Job:
        assert self._job is not None  # noqa: S101 - for the type checker
        request = job_pb2.GetJobRequest(job_id=self._job.id)
        job: job_pb2.Job = await self._calls.call_once(self._calls.jobs.GetJob, request, ATTEMPT_SECONDS)
        return job

    async def _stored(self) -> AsyncGenerator[Utterance, None]:
        """Yields the stored utterances that the stream has not sent."""
        while True:
            request = session_pb2.ListUtterancesRequest(
                session_id=self.session_id or "", offset=self._next_index, limit=_PAGE, version=_VERSION
            )
            try:
                page: session_pb2.ListUtterancesResponse = await self._calls.call_once(
                    self._calls.sessions.ListUtterances, request, ATTEMPT_SECONDS
                )
            except (NotFound, SessionActive) as error:
                if error.reason in _NO_TRANSCRIPT and not self._is_completed:
                    return  # Nothing is stored yet.
                raise
            for message in page.utterances:
                if (utterance := self._accept(message)) is not None:
                    yield utterance
            if not page.utterances or not page.has_more:
                return

    def _accept(self, message: session_pb2.Utterance) -> Utterance | None:
        """Keeps an utterance; returns None if it is known already."""
        if message.index < self._next_index:
            return None
        self._next_index = message.index + 1
        self._outage.end()
        utterance = messages.utterance(message)
        self._utterances.append(utterance)
        return utterance

    def _take_job(self, message: job_pb2.Job) -> None:
        job = messages.job(message)
        if job != self._job:
            self._job = job
            self._report()

    def _on_sent(self, sent: int) -> None:
        self._check_open()
        self._sent = sent
        self._report()

    def _report(self) -> None:
        if self._settings.on_progress is not None:
            self._settings.on_progress(FileProgress(self._sent, self._file.size, self._job))

    @property
    def _has_ended(self) -> bool:
        return self._job is not None and self._job.status in _ENDED

    @property
    def _is_completed(self) -> bool:
        return self._job is not None and self._job.status is JobStatus.COMPLETED

    def _check_completed(self) -> None:
        job = self._job
        assert job is not None  # noqa: S101 - for the type checker
        if job.status is JobStatus.CANCELED:
            raise JobCanceled(f"job {job.id} was canceled", job=job)
        if job.status is not JobStatus.COMPLETED:
            raise JobFailed(job.error or f"job {job.id} failed", job=job)


def _config(settings: FileSettings, name: str) -> file_pb2.FileConfig:
    try:
        return file_pb2.FileConfig(
            model=settings.model or "",
            language=settings.language or "",
            vocabulary=settings.vocabulary,
            file_name=name,
            store=settings.store,
        )
    except TypeError:
        raise TypeError("model and language must be strings, and vocabulary a sequence of strings") from None


def _is_lost(error: DalstonError) -> bool:
    """Whether a connection was lost that had existed."""
    return isinstance(error, Unavailable) and error.reason in ("", "SERVER_SHUTDOWN") and not is_unreached(error)


def _now() -> float:
    return asyncio.get_running_loop().time()
