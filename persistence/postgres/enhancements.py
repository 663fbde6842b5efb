"""The batch jobs of `enhance_on_end`: created in the transaction in which the audio of a session becomes stored.

The finisher, the recovery of a dead server's sessions, the restoration after a failover and the reconciliation of
spools all use that transaction. The job has the id of the session, so that a second one collides with the key, and
`session_end` can name it before it exists.

A session that continues others leaves one job: its own, of the joined recording. The jobs of the others are canceled
while they wait, and queued again where it ends without audio or is deleted.

Every function runs in the transaction of its caller, which holds the lock on the row of the session.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.job import DEFAULT_MODEL
from domain.session_id import new_uuid7
from persistence.postgres.arrays import arrays
from persistence.postgres.chains import MAX_LINKED

CONTINUED: Final = "continued"
"""The `error_code` of a job whose recording is part of that of a later session."""

_CONTINUED_MESSAGE: Final = "another session continues this one, and its job transcribes both"
_INTERRUPTED_SECONDS: Final = 60.0
"""How long the job of a session that was cut off waits: most are continued within seconds."""
_LONGER_SECONDS: Final = 0.05
"""Audio that is longer by less is the same recording."""

# In the order in which they began: a transaction that continues a session locks it before the session that continues
# it. A session without audio adds nothing to the joined recording, so the search continues before it.
_LOCK_PREDECESSORS = text("""
    WITH RECURSIVE before AS (
        SELECT s.previous_session_id AS id, 1 AS place FROM realtime_sessions AS s
        WHERE s.id = ANY(:ids) AND s.enhance_on_end
        UNION
        SELECT p.previous_session_id, b.place + 1 FROM before AS b JOIN realtime_sessions AS p ON p.id = b.id
        WHERE p.audio_duration_seconds = 0 AND b.place < :most
    )
    SELECT s.id FROM realtime_sessions AS s
    WHERE s.id IN (SELECT id FROM before) AND s.enhance_on_end AND s.deleted_at IS NULL
    ORDER BY s.id FOR NO KEY UPDATE OF s
""").bindparams(*arrays(ids=Uuid))

# A claim that is just being made wins: its job runs.
_SUPERSEDE = text("""
    UPDATE transcription_jobs AS j SET
        status = 'canceled', ended_at = now(), step = NULL, error_code = :code, error = :message
    FROM (SELECT id FROM transcription_jobs WHERE id = :id AND status = 'queued' FOR UPDATE SKIP LOCKED) AS waiting
    WHERE j.id = waiting.id RETURNING j.id
""").bindparams(bindparam("id", type_=Uuid))

# `later` follows the sessions that continue it for as long as their audio can be joined.
_STATE = text("""
    WITH RECURSIVE chain AS (
        SELECT s.id, s.tenant_id, s.previous_session_id, s.resume_from_seconds, s.store_audio,
            s.audio_duration_seconds AS seconds, 1 AS place
        FROM realtime_sessions AS s WHERE s.id = :id
        UNION ALL
        SELECT p.id, p.tenant_id, p.previous_session_id, p.resume_from_seconds, p.store_audio,
            coalesce(c.resume_from_seconds, p.audio_duration_seconds), c.place + 1
        FROM chain AS c JOIN realtime_sessions AS p ON p.id = c.previous_session_id
        WHERE p.tenant_id = c.tenant_id AND p.deleted_at IS NULL AND c.place <= :most
    ), later AS (
        SELECT n.id, n.enhance_on_end, n.audio_uri, n.audio_duration_seconds, 1 AS place
        FROM realtime_sessions AS n WHERE n.previous_session_id = :id AND n.deleted_at IS NULL AND n.store_audio
        UNION ALL
        SELECT n.id, n.enhance_on_end, n.audio_uri, n.audio_duration_seconds, l.place + 1
        FROM later AS l JOIN realtime_sessions AS n ON n.previous_session_id = l.id
        WHERE n.deleted_at IS NULL AND n.store_audio AND l.place <= :most
    ), joined AS (
        SELECT count(*) BETWEEN 2 AND :most AND bool_and(store_audio) AS linked, sum(seconds) AS seconds FROM chain
    ), jobs AS (
        SELECT bool_or(j.id = :id) AS has_own,
            bool_or(j.id = :id AND j.status = 'queued') AS waits,
            bool_or(j.id = :id AND j.status = 'canceled' AND j.error_code = :code) AS is_superseded,
            bool_or(j.status IN ('queued', 'running')) AS is_unended,
            max(j.audio_seconds) FILTER (WHERE j.status IN ('completed', 'failed')) AS done_seconds
        FROM transcription_jobs AS j WHERE j.session_id = :id AND j.kind = 'enhance'
    )
    SELECT joined.linked,
        CASE WHEN joined.linked THEN joined.seconds ELSE s.audio_duration_seconds END AS audio_seconds,
        CASE s.status WHEN 'completed' THEN 0 ELSE :interrupted_seconds END AS wait_seconds,
        EXISTS (
            SELECT FROM later AS l
            WHERE l.enhance_on_end AND (l.audio_uri IS NULL OR l.audio_duration_seconds > 0)
        ) AS is_continued,
        coalesce(jobs.has_own, false) AS has_own, coalesce(jobs.waits, false) AS waits,
        coalesce(jobs.is_superseded, false) AS is_superseded, coalesce(jobs.is_unended, false) AS is_unended,
        jobs.done_seconds
    FROM realtime_sessions AS s, joined, jobs
    WHERE s.id = :id AND s.enhance_on_end AND s.audio_uri IS NOT NULL AND s.audio_duration_seconds > 0
        AND s.deleted_at IS NULL
""").bindparams(bindparam("id", type_=Uuid))

REQUESTED_LANGUAGE: Final = """
    coalesce(s.requested_language, CASE WHEN EXISTS (
        SELECT FROM session_utterances AS u WHERE u.session_id = s.id AND u.language_probability IS NOT NULL
    ) THEN 'auto' ELSE s.language END)
"""
"""The language that the session `s` asked for. Servers of the previous release did not record it: where they have
detected that of an utterance, they were asked for `auto`."""

_INSERT = text(f"""
    INSERT INTO transcription_jobs (
        id, tenant_id, session_id, kind, status, model, language, vocabulary, linked, due_at, ended_at, audio_seconds,
        error_code, error
    )
    SELECT :job_id, s.tenant_id, s.id, 'enhance', :status, :model, {REQUESTED_LANGUAGE}, s.vocabulary, :linked,
        now() + make_interval(secs => :wait_seconds), CASE :status WHEN 'canceled' THEN now() END, :audio_seconds,
        :code, :message
    FROM realtime_sessions AS s WHERE s.id = :id
    ON CONFLICT DO NOTHING
""").bindparams(bindparam("id", type_=Uuid), bindparam("job_id", type_=Uuid))  # noqa: S608 - no input

_QUEUE_AGAIN = text("""
    UPDATE transcription_jobs AS j SET
        status = 'queued', ended_at = NULL, due_at = now() + make_interval(secs => :wait_seconds), error_code = NULL,
        error = NULL, linked = :linked, audio_seconds = :audio_seconds, plan = NULL, done_windows = 0, done_seconds = 0
    WHERE j.id = :id AND j.status = 'canceled' AND j.error_code = :code
""").bindparams(bindparam("id", type_=Uuid))

REMOVE_UTTERANCES = text("""
    DELETE FROM transcript_utterances AS u USING transcription_jobs AS j
    WHERE j.id = ANY(:ids) AND u.session_id = j.session_id AND u.version = j.version
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = j.session_id AND t.version = j.version)
""").bindparams(*arrays(ids=Uuid))
"""Removes what jobs that have ended without a transcript had transcribed."""


@dataclass(frozen=True, slots=True)
class _State:
    """A stored session that asked for a job, and its jobs."""

    linked: bool
    audio_seconds: float
    wait_seconds: float
    is_continued: bool
    """Whether the job of a later session transcribes its recording, too."""
    has_own: bool
    """Whether the job that has the id of the session exists."""
    waits: bool
    """Whether that is queued."""
    is_superseded: bool
    """Whether that was canceled because another session continues this one."""
    is_unended: bool
    """Whether a job of the session is queued or running."""
    done_seconds: float | None
    """The longest recording of a job that has completed or failed."""

    @property
    def has_grown(self) -> bool:
        """Whether audio was added to the recording after its job had ended."""
        return self.done_seconds is not None and self.audio_seconds > self.done_seconds + _LONGER_SECONDS


async def lock_predecessors(connection: AsyncConnection, session_ids: Sequence[UUID]) -> list[UUID]:
    """Locks the sessions whose jobs the jobs of these sessions stand for, and returns them, oldest first.

    To be called before the rows of these sessions are locked or changed: a transaction that continues a session locks
    the earlier one first.
    """
    found = await connection.execute(_LOCK_PREDECESSORS, {"ids": list(session_ids), "most": MAX_LINKED})
    return list(found.scalars())


async def settle(connection: AsyncConnection, session_ids: Iterable[UUID]) -> None:
    """Provides each of these sessions with the job that it should have, if it asked for one and its audio is stored.

    A session without a job gets one. It is canceled while it waits where a later session will transcribe the recording,
    and is queued again where no such session has audio any more. Jobs that a call asked for stay, and one that has
    begun continues. Audio that was added after its job had ended makes another job; while one is queued or running,
    nothing changes. Repeating this changes nothing.
    """
    for session_id in session_ids:
        parameters = {
            "id": session_id,
            "most": MAX_LINKED,
            "code": CONTINUED,
            "interrupted_seconds": _INTERRUPTED_SECONDS,
        }
        row = (await connection.execute(_STATE, parameters)).mappings().one_or_none()
        if row is not None:
            await _settle_one(connection, session_id, _State(**row))


async def settle_predecessors(connection: AsyncConnection, session_id: UUID) -> None:
    """Cancels the waiting jobs of the sessions that a new session with `enhance_on_end` continues."""
    await settle(connection, await lock_predecessors(connection, [session_id]))


async def _settle_one(connection: AsyncConnection, session_id: UUID, state: _State) -> None:
    wanted = {
        "id": session_id,
        "linked": state.linked,
        "audio_seconds": state.audio_seconds,
        "wait_seconds": state.wait_seconds,
    }
    new = wanted | {"job_id": session_id, "model": DEFAULT_MODEL, "status": "queued", "code": None, "message": None}
    superseded = {"code": CONTINUED, "message": _CONTINUED_MESSAGE}
    if state.is_continued and not state.has_own:
        # `session_end` has named it.
        await connection.execute(_INSERT, new | superseded | {"status": "canceled"})
    elif state.is_continued and state.waits:
        canceled = list((await connection.execute(_SUPERSEDE, {"id": session_id, **superseded})).scalars())
        await connection.execute(REMOVE_UTTERANCES, {"ids": canceled})
    elif state.is_continued or state.is_unended:
        return
    elif not state.has_own:
        await connection.execute(_INSERT, new)
    elif state.is_superseded:
        await connection.execute(_QUEUE_AGAIN, wanted | {"code": CONTINUED})
    elif state.has_grown:
        await connection.execute(_INSERT, new | {"job_id": new_uuid7()})
