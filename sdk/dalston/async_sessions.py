"""The records of past and running sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime

from dalston import messages
from dalston.async_audio import AsyncAudio
from dalston.backoff import Backoff
from dalston.calls import Calls, retry_pause
from dalston.errors import Busy, DalstonError, Unavailable
from dalston.events import PartialResult, Reconnecting
from dalston.records import (
    ExportFormat,
    Job,
    Session,
    SessionChange,
    SessionPage,
    SessionStatus,
    Transcript,
    TranscriptVersion,
    Utterance,
)
from dalston.times import timestamp
from dalston.v1 import session_pb2 as pb

PAGE = 100
_UTTERANCE_PAGE = 1000
_SILENCE_SECONDS = 30.0
_WATCH_SILENCE_SECONDS = 40.0
"""The service sends a heartbeat every 15 s."""
_WATCH_BACKOFF = Backoff(first=0.5, longest=15.0)


class AsyncSessions:
    """The sessions of the caller's tenant. Calls are retried within the timeout, unless a method states otherwise.

    All methods raise `NotFound` for a session that the tenant does not have, and `InvalidRequest` for a malformed id.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Session]:
        """Sessions, newest first. Pages are fetched as they are needed.

        Args:
            since, until: the start times to include, `until` itself excluded. A time without a zone is local time.
            limit: the largest number of sessions. Default: all.
        """
        if limit is not None and limit <= 0:
            raise ValueError("limit must be more than 0")
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.page(status=status, since=since, until=until, limit=size, cursor=cursor)
            for session in page.sessions:
                yield session
            if left is not None:
                left -= len(page.sessions)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def page(
        self,
        *,
        status: SessionStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page of `list`: the first, or the page that follows the one whose `next_cursor` is `cursor`."""
        request = pb.ListSessionsRequest(
            status=str(status) if status else "",
            since=timestamp(since),
            until=timestamp(until),
            limit=limit,
            cursor=cursor or "",
        )
        answer: pb.ListSessionsResponse = await self._calls.call_with_retries(
            self._calls.sessions.ListSessions, request
        )
        return SessionPage(
            sessions=tuple(messages.session(session) for session in answer.sessions),
            total=answer.pagination.total,
            next_cursor=answer.pagination.next_cursor or None,
            total_is_exact=answer.pagination.total_is_exact,
        )

    async def get(self, session_id: str) -> Session:
        """One session."""
        request = pb.GetSessionRequest(session_id=session_id)
        return messages.session(await self._calls.call_with_retries(self._calls.sessions.GetSession, request))

    async def delete(self, session_id: str) -> None:
        """Deletes a session with its audio and transcript permanently.

        Raises:
            SessionActive: the session is still running.
        """
        request = pb.DeleteSessionRequest(session_id=session_id)
        await self._calls.call_with_retries(self._calls.sessions.DeleteSession, request, not_found_is_success=True)

    async def end(self, session_id: str) -> Session:
        """Ends a live session on whichever server runs it. Returns its state at the time of the request.

        The session ends within seconds: its client receives the last finals and then `SessionEnded`. A session that has
        already ended stays as it is.
        """
        request = pb.EndSessionRequest(session_id=session_id)
        return messages.session(await self._calls.call_with_retries(self._calls.sessions.EndSession, request))

    def audio(self, session_id: str, *, linked: bool = False, start: int = 0) -> AsyncAudio:
        """The stored audio, a WAV file in the encoding that was sent: read it at once, save it, or iterate over it.

        Args:
            linked: whether to join it with the sessions that it continues.
            start: offset in the file in bytes, for example to continue an incomplete download.

        Reading the returned object raises:
            NotFound: the session stored no audio.
            SessionActive: it is not completely stored yet.
        """
        return AsyncAudio(self._calls, session_id, linked=linked, start=start)

    async def transcript(self, session_id: str, *, version: int | None = None, linked: bool = False) -> Transcript:
        """The stored transcript.

        Args:
            version: 1 is the live one. Default: the current version.
            linked: whether to join it with those of the sessions that it continues. By default it is then the newest
                version of the joined recording, or the join of their current versions; 1 joins the live ones.

        Raises:
            NotFound: the session stored no transcript, or has no such version.
            SessionActive: it is not completely stored yet.
        """
        request = pb.GetTranscriptRequest(session_id=session_id, linked=linked, version=version or 0)
        return messages.transcript(await self._document(self._calls.sessions.GetTranscript, request))

    async def transcripts(self, session_id: str) -> tuple[TranscriptVersion, ...]:
        """The stored versions of the session's transcript, the live one first.

        Raises:
            NotFound: the session stored no transcript.
            SessionActive: it is not completely stored yet.
        """
        request = pb.ListTranscriptsRequest(session_id=session_id)
        answer: pb.ListTranscriptsResponse = await self._calls.call_with_retries(
            self._calls.sessions.ListTranscripts, request
        )
        return tuple(messages.transcript_version(each) for each in answer.transcripts)

    async def set_current_transcript(self, session_id: str, version: int) -> TranscriptVersion:
        """Makes a version the current one, which is read where no version is asked for. Returns it.

        Raises:
            NotFound: the session has no such version.
        """
        request = pb.SetCurrentTranscriptRequest(session_id=session_id, version=version)
        return messages.transcript_version(
            await self._calls.call_with_retries(self._calls.sessions.SetCurrentTranscript, request)
        )

    async def delete_transcript(self, session_id: str, version: int) -> None:
        """Deletes a version of the transcript permanently. Version 1 is deleted with its session only.

        Raises:
            NotFound: the session has no such version.
            InvalidRequest: it is version 1.
        """
        request = pb.DeleteTranscriptRequest(session_id=session_id, version=version)
        await self._calls.call_with_retries(self._calls.sessions.DeleteTranscript, request, not_found_is_success=True)

    async def utterances(
        self, session_id: str, *, version: int | None = None, follow: bool = False, interval: float = 1.0
    ) -> AsyncIterator[Utterance]:
        """The utterances of the session so far.

        Args:
            version: of the transcript. Default: the live one, 1, which grows while the session runs.
            follow: whether to wait for further utterances while the session runs.
            interval: seconds between two polls when following.

        Raises:
            NotFound: the session stores no transcript, or has no such version.
        """
        offset = 0
        while True:
            request = pb.ListUtterancesRequest(
                session_id=session_id, offset=offset, limit=_UTTERANCE_PAGE, version=version or 0
            )
            page: pb.ListUtterancesResponse = await self._calls.call_with_retries(
                self._calls.sessions.ListUtterances, request
            )
            for each in page.utterances:
                yield messages.utterance(each)
            offset += len(page.utterances)
            if not page.has_more:
                return
            if not page.utterances:
                if not follow:
                    return
                await asyncio.sleep(interval)

    async def export(
        self,
        session_id: str,
        format: ExportFormat | str,  # noqa: A002 - the name of the parameter in the API
        *,
        version: int | None = None,
        linked: bool = False,
        max_line_length: int | None = None,
        max_lines: int | None = None,
    ) -> str:
        """The stored transcript as text, captions or JSON.

        Args:
            version, linked: as for `transcript`.
            max_line_length: longest line of a caption, in characters.
            max_lines: largest number of lines of a caption.

        Raises:
            NotFound: the session stored no transcript, or has no such version.
            SessionActive: it is not completely stored yet.
        """
        request = pb.ExportTranscriptRequest(
            session_id=session_id,
            format=str(format),
            linked=linked,
            max_line_length=max_line_length,
            max_lines=max_lines,
            version=version or 0,
        )
        return (await self._document(self._calls.sessions.ExportTranscript, request)).decode()

    async def watch(
        self,
        *,
        status: SessionStatus | str | None = None,
        resume_token: str | None = None,
        on_reconnect: Callable[[Reconnecting], object] | None = None,
    ) -> AsyncIterator[SessionChange]:
        """First the current state of every session, then every change, without end.

        After a lost connection the watch reconnects and continues after the last change; after a long outage it begins
        with the current state of every session again. Only an error that a retry cannot resolve ends it.

        Args:
            on_reconnect: called before each attempt to restore a lost connection.

        Raises:
            Unavailable, Busy: nothing has been received within the timeout of the client.
        """
        loop = asyncio.get_running_loop()
        token, attempt = resume_token or "", 0
        first_until: float | None = loop.time() + self._calls.timeout
        while True:
            request = pb.WatchSessionsRequest(status=str(status) if status else "", resume_token=token)
            stream = self._calls.stream(self._calls.sessions.WatchSessions, request, _WATCH_SILENCE_SECONDS)
            error: DalstonError = Unavailable("the service ended the watch")
            try:
                async with aclosing(stream) as answers:
                    async for answer in answers:
                        if not isinstance(answer, pb.WatchSessionsResponse):
                            continue
                        token = answer.resume_token or token
                        if answer.type == "error":
                            break
                        attempt, first_until = 0, None
                        if answer.type != "heartbeat":
                            yield messages.change(answer)
            except (Unavailable, Busy) as lost:
                error = lost
            attempt += 1
            pause = _WATCH_BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)
            if first_until is not None and loop.time() + pause >= first_until:
                raise error
            if on_reconnect is not None:
                on_reconnect(Reconnecting(attempt, pause, error.message))
            await asyncio.sleep(pause)

    async def follow(
        self,
        session_id: str,
        *,
        offset: int = 0,
        partials: bool = True,
        on_reconnect: Callable[[Reconnecting], object] | None = None,
    ) -> AsyncIterator[Utterance | PartialResult]:
        """The finals of a session as utterances, those so far first, until it has ended and all of them have come.

        While it runs, the utterance that is being spoken comes as partials, which the next utterance replaces. An empty
        partial voids the one before it. After a lost connection it reconnects and continues with the next utterance.

        Args:
            session_id: the session: a live one, or that of an uploaded file, whose utterances come window by window.
            offset: `index` of the first utterance.
            partials: whether partials are wanted.
            on_reconnect: called before each attempt to restore a lost connection.

        Raises:
            NotFound: the session does not store its transcript, or was deleted meanwhile.
            Unavailable, Busy: nothing has been received within the timeout of the client.
        """
        loop = asyncio.get_running_loop()
        attempt = 0
        first_until: float | None = loop.time() + self._calls.timeout
        while True:
            request = pb.WatchUtterancesRequest(session_id=session_id, offset=offset)
            stream = self._calls.stream(self._calls.sessions.WatchUtterances, request, _WATCH_SILENCE_SECONDS)
            error: DalstonError = Unavailable("the service ended the watch")
            try:
                async with aclosing(stream) as answers:
                    async for answer in answers:
                        if not isinstance(answer, pb.WatchUtterancesResponse):
                            continue
                        if answer.type == "error":
                            break
                        attempt, first_until = 0, None
                        if answer.type == "ended":
                            return
                        if answer.type == "utterance":
                            offset = answer.utterance.index + 1
                            yield messages.utterance(answer.utterance)
                        elif answer.type == "partial" and partials:
                            yield messages.partial(answer.partial)
            except (Unavailable, Busy) as lost:
                error = lost
            attempt += 1
            pause = _WATCH_BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)
            if first_until is not None and loop.time() + pause >= first_until:
                raise error
            if on_reconnect is not None:
                on_reconnect(Reconnecting(attempt, pause, error.message))
            await asyncio.sleep(pause)

    async def enhance(
        self,
        session_id: str,
        *,
        model: str | None = None,
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        linked: bool | None = None,
    ) -> Job:
        """Creates a batch job that transcribes the stored audio again. The call is not retried.

        Its transcript becomes a new version; the live one stays. `jobs.wait` waits for it.

        Args:
            session_id: the session.
            model: default `accurate`.
            language: ISO 639-1, or `auto`. Default: the language the session asked for.
            vocabulary: words that are likely to be spoken.
            linked: whether to transcribe the joined recording of the session and those that it continues. Default: if
                it continues any.

        Raises:
            NotFound: the session stored no audio.
            SessionActive: it is not completely stored yet.
            JobRunning: another job of the session is queued or running.
            TooManyJobs: the tenant has reached its limit of queued jobs.
        """
        request = pb.EnhanceSessionRequest(
            session_id=session_id, model=model or "", language=language or "", vocabulary=vocabulary, linked=linked
        )
        return messages.job(await self._calls.call_once(self._calls.sessions.EnhanceSession, request))

    async def enhancement(self, session_id: str) -> Job:
        """The newest batch job of a session's recording.

        Raises:
            NotFound: it has had none.
        """
        request = pb.GetEnhancementRequest(session_id=session_id)
        return messages.job(await self._calls.call_with_retries(self._calls.sessions.GetEnhancement, request))

    async def _document(self, method: object, request: object) -> bytes:
        """Reads a streamed response completely, and starts over if the stream breaks."""
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + self._calls.timeout, 0
        while True:
            parts = bytearray()
            try:
                async with aclosing(self._calls.stream(method, request, _SILENCE_SECONDS)) as answers:
                    async for answer in answers:
                        if not isinstance(answer, dict):
                            parts += answer.data
                return bytes(parts)
            except DalstonError as error:
                attempt += 1
                pause = retry_pause(error, attempt)
                if pause is None or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
