"""The synchronous client: runs the asynchronous one on a background thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, Unpack

from dalston import background
from dalston.async_audio import AsyncAudio
from dalston.async_client import DEFAULT_TIMEOUT, AsyncClient
from dalston.async_jobs import AsyncJobs
from dalston.async_keys import AsyncKeys, AsyncTokens
from dalston.async_sessions import AsyncSessions
from dalston.events import PartialResult, Reconnecting
from dalston.file_transcription import FileTranscription
from dalston.options import AudioSource, FileOptions, FileSource, TranscribeOptions
from dalston.records import (
    ExportFormat,
    Job,
    JobPage,
    JobStatus,
    Key,
    Login,
    NewKey,
    Scope,
    Session,
    SessionChange,
    SessionPage,
    SessionStatus,
    Token,
    Transcript,
    TranscriptVersion,
    Utterance,
)
from dalston.service_status import ServiceStatus
from dalston.transcription import Transcription


class Client:
    """A client of one service with one key. It takes the arguments and raises the errors of `AsyncClient`.

    Several threads may share it. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._client = AsyncClient(url, api_key, timeout=timeout, ca_file=ca_file)
        self.sessions = Sessions(self._client.sessions)
        self.jobs = Jobs(self._client.jobs)
        self.keys = Keys(self._client.keys)
        self.tokens = Tokens(self._client.tokens)

    def transcribe(self, audio: AudioSource, **options: Unpack[TranscribeOptions]) -> Transcription:
        """Transcribes audio as it arrives: enter the returned object, and iterate over its events.

        See `AsyncClient.transcribe`.
        """
        return Transcription(self._client.transcribe(audio, **options))

    def transcribe_file(self, source: FileSource, **options: Unpack[FileOptions]) -> FileTranscription:
        """Transcribes a file as a batch job of the service: iterate over the returned object, or call `wait()`.

        The functions `on_progress` and `on_reconnect` are called on another thread. See `AsyncClient.transcribe_file`.
        """
        return FileTranscription(self._client.transcribe_file(source, **options))

    def status(self) -> ServiceStatus:
        """The status of the service. See `AsyncClient.status`."""
        return background.run(self._client.status())

    def close(self) -> None:
        """Closes the connection. Calls in progress fail with RuntimeError."""
        background.run(self._client.close())

    def __enter__(self) -> Self:
        background.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Sessions:
    """The sessions of the caller's tenant. The errors are those of `AsyncSessions`."""

    def __init__(self, sessions: AsyncSessions) -> None:
        self._sessions = sessions

    def list(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Session]:
        """Sessions, newest first. Pages are fetched as they are needed."""
        return background.iterate(self._sessions.list(status=status, since=since, until=until, limit=limit))

    def page(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page of `list`: the first, or the page that follows the one whose `next_cursor` is `cursor`."""
        return background.run(self._sessions.page(status=status, since=since, until=until, limit=limit, cursor=cursor))

    def get(self, session_id: str) -> Session:
        """One session."""
        return background.run(self._sessions.get(session_id))

    def delete(self, session_id: str) -> None:
        """Deletes a session with its audio and transcript permanently."""
        background.run(self._sessions.delete(session_id))

    def end(self, session_id: str) -> Session:
        """Ends a live session on whichever server runs it. Returns its state at the time of the request."""
        return background.run(self._sessions.end(session_id))

    def audio(self, session_id: str, *, linked: bool = False, start: int = 0) -> Audio:
        """The stored audio, a WAV file: read it at once, save it, or iterate over it.

        Args:
            linked: whether to join it with the sessions that it continues.
            start: offset in the file in bytes, for example to continue an incomplete download.
        """
        return Audio(self._sessions.audio(session_id, linked=linked, start=start))

    def transcript(self, session_id: str, *, version: int | None = None, linked: bool = False) -> Transcript:
        """The stored transcript.

        Args:
            version: 1 is the live one. Default: the current version.
            linked: whether to join it with those of the sessions that it continues.
        """
        return background.run(self._sessions.transcript(session_id, version=version, linked=linked))

    def transcripts(self, session_id: str) -> tuple[TranscriptVersion, ...]:
        """The stored versions of the session's transcript, the live one first."""
        return background.run(self._sessions.transcripts(session_id))

    def set_current_transcript(self, session_id: str, version: int) -> TranscriptVersion:
        """Makes a version the current one, which is read where no version is asked for. Returns it."""
        return background.run(self._sessions.set_current_transcript(session_id, version))

    def delete_transcript(self, session_id: str, version: int) -> None:
        """Deletes a version of the transcript permanently. Version 1 is deleted with its session only."""
        background.run(self._sessions.delete_transcript(session_id, version))

    def utterances(
        self, session_id: str, *, version: int | None = None, follow: bool = False, interval: float = 1.0
    ) -> Iterator[Utterance]:
        """The utterances of the session so far; with `follow`, also those that come until it ends.

        Args:
            version: of the transcript. Default: the live one, 1.
        """
        utterances = self._sessions.utterances(session_id, version=version, follow=follow, interval=interval)
        return background.iterate(utterances)

    def export(
        self,
        session_id: str,
        format: ExportFormat | str,  # noqa: A002 - the name of the parameter in the API
        *,
        version: int | None = None,
        linked: bool = False,
        max_line_length: int | None = None,
        max_lines: int | None = None,
    ) -> str:
        """The stored transcript as text, captions or JSON."""
        return background.run(
            self._sessions.export(
                session_id,
                format,
                version=version,
                linked=linked,
                max_line_length=max_line_length,
                max_lines=max_lines,
            )
        )

    def watch(
        self,
        *,
        status: SessionStatus | str | None = None,
        resume_token: str | None = None,
        on_reconnect: Callable[[Reconnecting], object] | None = None,
    ) -> Iterator[SessionChange]:
        """First the current state of every session, then every change, without end.

        Args:
            on_reconnect: called on another thread before each attempt to restore a lost connection.
        """
        return background.iterate(
            self._sessions.watch(status=status, resume_token=resume_token, on_reconnect=on_reconnect)
        )

    def follow(
        self,
        session_id: str,
        *,
        offset: int = 0,
        partials: bool = True,
        on_reconnect: Callable[[Reconnecting], object] | None = None,
    ) -> Iterator[Utterance | PartialResult]:
        """The finals of a session as utterances and, while it runs, the partials between them, until it has ended.

        See `AsyncSessions.follow`.

        Args:
            session_id: the session.
            offset: `index` of the first utterance.
            partials: whether partials are wanted.
            on_reconnect: called on another thread before each attempt to restore a lost connection.
        """
        return background.iterate(
            self._sessions.follow(session_id, offset=offset, partials=partials, on_reconnect=on_reconnect)
        )

    def enhance(
        self,
        session_id: str,
        *,
        model: str | None = None,
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        linked: bool | None = None,
    ) -> Job:
        """Creates a batch job that transcribes the stored audio again. The call is not retried.

        See `AsyncSessions.enhance`; `jobs.wait` waits for the job.
        """
        return background.run(
            self._sessions.enhance(session_id, model=model, language=language, vocabulary=vocabulary, linked=linked)
        )

    def enhancement(self, session_id: str) -> Job:
        """The newest batch job of a session's recording."""
        return background.run(self._sessions.enhancement(session_id))


class Jobs:
    """The batch jobs of the caller's tenant. The errors are those of `AsyncJobs`."""

    def __init__(self, jobs: AsyncJobs) -> None:
        self._jobs = jobs

    def list(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, newest first. Pages are fetched as they are needed."""
        return background.iterate(self._jobs.list(status=status, kind=kind, session_id=session_id, limit=limit))

    def page(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """One page of `list`: the first, or the page that follows the one whose `next_cursor` is `cursor`."""
        return background.run(
            self._jobs.page(status=status, kind=kind, session_id=session_id, limit=limit, cursor=cursor)
        )

    def get(self, job_id: str) -> Job:
        """One job."""
        return background.run(self._jobs.get(job_id))

    def cancel(self, job_id: str) -> Job:
        """Cancels a job: a queued one at once, a running one within seconds. Returns its state."""
        return background.run(self._jobs.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        """Creates a job like one that has ended, and returns it. The call is not retried."""
        return background.run(self._jobs.retry(job_id))

    def watch(self, job_id: str, *, on_reconnect: Callable[[Reconnecting], object] | None = None) -> Iterator[Job]:
        """First the current state of a job, then every change, until it has ended.

        Args:
            job_id: the job.
            on_reconnect: called on another thread before each attempt to restore a lost connection.
        """
        return background.iterate(self._jobs.watch(job_id, on_reconnect=on_reconnect))

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Waits until a job has ended, and returns it: completed, failed or canceled.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return background.run(self._jobs.wait(job_id, timeout))


class Audio:
    """A WAV file on the service. An interrupted download continues where it stopped."""

    def __init__(self, audio: AsyncAudio) -> None:
        self._audio = audio

    @property
    def start(self) -> int:
        """Offset in the file at which reading begins, in bytes."""
        return self._audio.start

    @property
    def size(self) -> int | None:
        """Size of the whole file in bytes, regardless of `start`; known once the first piece has arrived."""
        return self._audio.size

    def __iter__(self) -> Generator[bytes, None, None]:
        """Yields the file from `start` on, in pieces of any size."""
        return background.iterate(aiter(self._audio))

    def read(self) -> bytes:
        """Returns the file from `start` on."""
        return background.run(self._audio.read())

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the file from `start` on to `path`, which appears once it is complete. Returns the bytes written."""
        return background.run(self._audio.save(path))


class Keys:
    """The tenant's API keys. Every method requires a key with the scope `admin`."""

    def __init__(self, keys: AsyncKeys) -> None:
        self._keys = keys

    def create(self, name: str, scopes: Iterable[Scope | str], *, expires_in_seconds: int | None = None) -> NewKey:
        """Creates a key. Only the response contains its secret. The call is not retried."""
        return background.run(self._keys.create(name, scopes, expires_in_seconds=expires_in_seconds))

    def list(self) -> Iterator[Key]:
        """All keys, newest first, revoked and expired ones included."""
        return background.iterate(self._keys.list())

    def revoke(self, key_id: str) -> Key:
        """Revokes a key. Within seconds every server rejects it."""
        return background.run(self._keys.revoke(key_id))

    def logins(self, key_id: str) -> Sequence[Login]:
        """The logins of a key that have not ended, newest first: at most 50."""
        return background.run(self._keys.logins(key_id))

    def revoke_login(self, key_id: str, login_id: str) -> None:
        """Ends a login of a key. Within seconds every server rejects it."""
        background.run(self._keys.revoke_login(key_id, login_id))


class Tokens:
    """Short-lived tokens, for clients that must not hold a key."""

    def __init__(self, tokens: AsyncTokens) -> None:
        self._tokens = tokens

    def create(self, *, expires_in_seconds: int | None = None) -> Token:
        """Creates a token that opens one live session, once. Requires the scope `realtime`."""
        return background.run(self._tokens.create(expires_in_seconds=expires_in_seconds))
