"""The statements with which workers claim batch jobs and do them.

A job belongs to the claim that its row names: the worker, and the number of the claim. Every statement about a job
names both (the fence), so that a worker which was paused until another took its job writes nothing any more. Only the
clock of Postgres is used.

Statements lock the row of the session before that of the job, in the order in which a deletion does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import ARRAY, JSON, ColumnElement, LargeBinary, RowMapping, Select, Uuid, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.job import JobRequest
from domain.transcript import Utterance
from persistence.errors import JobLost
from persistence.job_values import Claim, Completion, JobCount, LostJob, NewVersion
from persistence.postgres import enhancements
from persistence.postgres.database import Database
from persistence.postgres.finals import final_of, utterance_arrays, utterance_parameters
from persistence.postgres.lease import machine
from persistence.postgres.tables import session_utterances, transcript_utterances

MAX_ATTEMPTS: Final = 5
"""Attempts without a finished window, after which a job fails."""
DEFAULT_MAX_JOBS: Final = 2
"""Jobs of a tenant that run at a time, unless it has its own limit."""
DIED: Final = ("worker_died", "the worker ended five times while it did this")
_LONGEST_RETRY_SECONDS: Final = 600.0
_MOST_REQUEUED: Final = 1000
_PAGE: Final = 1000

_takeovers = Counter(
    "dalston_job_takeovers_total", "Batch jobs that this process has taken from processes without a lease"
)

# Claims take turns: of two at a time, both would see the same tenants with places left.
_CLAIM_TURN: Final = text("SELECT pg_advisory_xact_lock(hashtext('dalston claim of a job'))")

# Tenants with the fewest running jobs first, then the one that was served longest ago. Jobs of sessions that are being
# deleted end with them.
_CLAIM = text("""
    WITH waiting AS (
        SELECT tenant_id, count(*) FILTER (WHERE status = 'running') AS running FROM transcription_jobs
        WHERE status IN ('queued', 'running') GROUP BY tenant_id
    ), turn AS (
        SELECT w.tenant_id, w.running,
            (SELECT max(r.started_at) FROM transcription_jobs AS r WHERE r.tenant_id = w.tenant_id) AS served
        FROM waiting AS w JOIN tenants AS t ON t.id = w.tenant_id
        WHERE w.running < coalesce(t.max_jobs, :most_of_tenant)
    ), next AS (
        SELECT j.id FROM transcription_jobs AS j JOIN turn USING (tenant_id)
        WHERE j.status = 'queued' AND j.due_at <= now()
            AND EXISTS (SELECT FROM realtime_sessions AS s WHERE s.id = j.session_id AND s.deleted_at IS NULL)
        ORDER BY j.kind = :first_kind DESC, turn.running, turn.served NULLS FIRST, j.created_at, j.id
        LIMIT 1 FOR UPDATE OF j SKIP LOCKED
    )
    UPDATE transcription_jobs AS j SET
        status = 'running', worker_id = :worker_id, claim = j.claim + 1, attempts = j.attempts + 1, started_at = now(),
        step = NULL
    FROM next, realtime_sessions AS s
    WHERE j.id = next.id AND s.id = j.session_id
    RETURNING j.*, s.language AS session_language,
        extract(epoch FROM now() - greatest(j.created_at, j.due_at))::float8 AS waited_seconds
""")

_FENCE: Final = "j.id = :id AND j.claim = :claim AND j.worker_id = :worker_id AND j.status = 'running'"

_LOCK_SESSION = "SELECT id FROM realtime_sessions WHERE id = :session_id AND deleted_at IS NULL FOR {strength}"
_SHARE = text(_LOCK_SESSION.format(strength="KEY SHARE"))
_UPDATE = text(_LOCK_SESSION.format(strength="NO KEY UPDATE"))

_CANCELED: Final = "j.cancel_requested_at IS NOT NULL"
_IS_CANCELED = text(f"SELECT {_CANCELED} FROM transcription_jobs AS j WHERE {_FENCE}")  # noqa: S608 - no input
_STEP = text(f"""
    UPDATE transcription_jobs AS j SET step = :step WHERE {_FENCE} RETURNING {_CANCELED}
""")  # noqa: S608 - no input
# What was transcribed of another recording is void: of one without a session that was deleted, or with more audio.
_VOID: Final = "j.chain_key IS DISTINCT FROM :chain_key"
_BEGIN = text(f"""
    UPDATE transcription_jobs AS j SET
        step = 'listening', chain = :chain, chain_key = :chain_key, audio_seconds = :audio_seconds,
        linked = j.linked AND cardinality(CAST(:chain AS uuid[])) > 1,
        plan = CASE WHEN {_VOID} THEN NULL ELSE j.plan END,
        done_windows = CASE WHEN {_VOID} THEN 0 ELSE j.done_windows END,
        done_seconds = CASE WHEN {_VOID} THEN 0 ELSE j.done_seconds END
    FROM transcription_jobs AS o
    WHERE {_FENCE} AND o.id = j.id RETURNING {_CANCELED} AS canceled, o.chain_key IS DISTINCT FROM :chain_key AS is_void
""").bindparams(  # noqa: S608 - no input
    bindparam("chain", type_=ARRAY(Uuid)), bindparam("chain_key", type_=LargeBinary)
)
_RESTART = text(f"""
    UPDATE transcription_jobs AS j SET step = 'listening', plan = NULL, done_windows = 0, done_seconds = 0
    WHERE {_FENCE} RETURNING j.id
""")  # noqa: S608 - no input
_ATTEMPTS = text(f"SELECT j.attempts FROM transcription_jobs AS j WHERE {_FENCE}")  # noqa: S608 - no input
_PLAN = text(f"""
    UPDATE transcription_jobs AS j SET step = 'transcribing', plan = CAST(:plan AS jsonb)
    WHERE {_FENCE} RETURNING {_CANCELED}
""").bindparams(bindparam("plan", type_=JSON))  # noqa: S608 - no input
# Also a number whose transcript was deleted, or whose job did not complete, is not used again: its object may exist.
_NEXT_VERSION: Final = """
    1 + greatest(
        (SELECT CASE s.source WHEN 'upload' THEN 0 ELSE 1 END FROM realtime_sessions AS s WHERE s.id = j.session_id),
        (SELECT max(t.version) FROM transcripts AS t WHERE t.session_id = j.session_id),
        (SELECT max(o.version) FROM transcription_jobs AS o WHERE o.session_id = j.session_id)
    )
"""
# A failover of Postgres may have lost the window before: then the transcript would have a gap. The second number is
# that of a transaction that was committed although its answer was lost.
_WINDOW = text(f"""
    UPDATE transcription_jobs AS j SET
        step = 'transcribing', done_seconds = :done_seconds, done_windows = :done_windows, rate = :rate, attempts = 0,
        version = coalesce(j.version, {_NEXT_VERSION})
    WHERE {_FENCE} AND j.done_windows IN (:windows_before, :done_windows)
    RETURNING {_CANCELED} AS canceled, j.version
""")  # noqa: S608 - no input
# Of a window whose transaction was committed, although the answer was lost, they are there already.
_INSERT_UTTERANCES = text("""
    INSERT INTO transcript_utterances (
        session_id, version, index, start, "end", text, confidence, language, words, language_probability
    )
    SELECT :session_id, :version, n.index, n.start, n."end", n.text, n.confidence, n.language, n.words::jsonb,
        n.language_probability
    FROM unnest(
        :indexes, :starts, :ends, :texts, :confidences, :languages, :words, :language_probabilities
    ) AS n(index, start, "end", text, confidence, language, words, language_probability)
    ON CONFLICT (session_id, version, index) DO NOTHING
""").bindparams(*utterance_arrays())
_COMPLETE = text(f"""
    UPDATE transcription_jobs AS j SET
        status = 'completed', ended_at = now(), worker_id = NULL, step = NULL, done_seconds = j.audio_seconds
    WHERE {_FENCE} AND j.version = :version AND j.cancel_requested_at IS NULL RETURNING j.id
""")  # noqa: S608 - no input
_INSERT_TRANSCRIPT = text("""
    INSERT INTO transcripts (
        session_id, version, kind, job_id, model, language, linked, chain_key, audio_seconds, utterance_count,
        word_count, uri, verdict, verdict_reason
    )
    SELECT j.session_id, j.version, CASE j.kind WHEN 'upload' THEN 'upload' ELSE 'enhanced' END, j.id, :model,
        :language, j.linked, CASE WHEN j.linked THEN j.chain_key END, :audio_seconds, :utterance_count,
        :word_count, :uri, :verdict, :verdict_reason
    FROM transcription_jobs AS j WHERE j.id = :id
""")
# A linked transcript is on the time axis of the joined recording, and not on that of its session.
_SET_CURRENT = text("""
    UPDATE realtime_sessions AS s SET current_version = :version
    FROM transcription_jobs AS j
    WHERE j.id = :id AND s.id = j.session_id AND NOT j.linked
""")
# Of an uploaded file nothing is known before: it has no live transcript.
_SET_FILE = text("""
    UPDATE realtime_sessions AS s SET
        store_transcript = true, transcript_uri = coalesce(s.transcript_uri, :uri),
        audio_duration_seconds = :audio_seconds, utterance_count = :utterance_count, word_count = :word_count,
        language = :language
    FROM transcription_jobs AS j
    WHERE j.id = :id AND s.id = j.session_id AND s.source = 'upload'
""")
# A transaction that was committed although its answer was lost.
_IS_COMPLETED = text("""
    SELECT j.id FROM transcription_jobs AS j WHERE j.id = :id AND j.claim = :claim AND j.status = 'completed'
""")
# A transcript with a deleted session is not stored. The locks last until the transcript can be found by a deletion.
_LOCK_CHAIN = text("""
    SELECT s.id FROM realtime_sessions AS s
    WHERE s.id = ANY(:chain) AND s.deleted_at IS NULL ORDER BY s.id FOR SHARE
""").bindparams(bindparam("chain", type_=ARRAY(Uuid)))
# The figures of an uploaded file are known with its first transcript.
_FAIL = text(f"""
    UPDATE transcription_jobs AS j SET
        status = 'failed', ended_at = now(), worker_id = NULL, step = NULL, error_code = :code, error = :message
    WHERE {_FENCE} RETURNING j.id
""")  # noqa: S608 - no input
_CANCEL = text(f"""
    UPDATE transcription_jobs AS j SET status = 'canceled', ended_at = now(), worker_id = NULL, step = NULL
    WHERE {_FENCE} RETURNING j.id
""")  # noqa: S608 - no input
_REQUEUE = text(f"""
    UPDATE transcription_jobs AS j SET
        status = 'queued', worker_id = NULL, step = NULL, due_at = now() + make_interval(secs => :seconds),
        attempts = greatest(0, j.attempts - :uncounted)
    WHERE {_FENCE} RETURNING j.id
""")  # noqa: S608 - no input


_REQUEUE_LOST_SQL: Final = """
    WITH lost AS (
        SELECT j.id FROM transcription_jobs AS j
        WHERE j.status = 'running' AND {lost} LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE transcription_jobs AS j SET
        status = CASE WHEN j.attempts >= :most THEN 'failed' ELSE 'queued' END,
        ended_at = CASE WHEN j.attempts >= :most THEN now() END,
        error_code = CASE WHEN j.attempts >= :most THEN CAST(:code AS text) END,
        error = CASE WHEN j.attempts >= :most THEN CAST(:message AS text) END,
        due_at = now() + make_interval(
            secs => CASE j.attempts WHEN 0 THEN 0 ELSE least(:longest, :first * power(2, j.attempts - 1)) END
        ),
        worker_id = NULL, step = NULL
    FROM lost WHERE j.id = lost.id
    RETURNING j.id, j.session_id, j.status = 'failed' AS has_failed
"""
_REQUEUE_WITHOUT_LEASE = text(
    _REQUEUE_LOST_SQL.format(
        lost="NOT EXISTS (SELECT FROM workers AS w WHERE w.id = j.worker_id AND w.lease_expires_at > now())"
    )
)
_REQUEUE_UNKNOWN = text(
    _REQUEUE_LOST_SQL.format(lost="j.worker_id = :worker_id AND NOT j.id = ANY(:known)")
).bindparams(bindparam("known", type_=ARRAY(Uuid)))

_IS_MACHINE_BEHIND = text("""
    SELECT EXISTS (
        SELECT FROM workers WHERE kind = 'server' AND host = :host AND is_behind AND lease_expires_at > now()
    )
""")
_COUNTS = text("""
    SELECT status, kind, count(*) AS count FROM transcription_jobs
    WHERE status IN ('queued', 'running') GROUP BY status, kind
""")

_l = session_utterances.c
_u = transcript_utterances.c


def retry_seconds(attempts: int, first_seconds: float) -> float:
    """The back-off after so many failed attempts."""
    return min(_LONGEST_RETRY_SECONDS, first_seconds * 2 ** (attempts - 1)) if attempts else 0.0


class LostJobs:
    """Queues the jobs of processes without a lease again. Every server and every worker does it."""

    def __init__(self, database: Database, first_retry_seconds: float) -> None:
        self._database = database
        self._first_retry_seconds = first_retry_seconds

    async def requeue(self) -> Sequence[LostJob]:
        """Queues the jobs of processes without a lease again; a job whose workers have ended too often fails.

        The caller has held its own lease for longer than the duration of one, so that an outage of Postgres, in which
        all leases lapse, leaves the others time to renew theirs.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        async with self._database.transaction() as connection:
            found = await _requeue(connection, _REQUEUE_WITHOUT_LEASE, self._first_retry_seconds, {})
        _takeovers.inc(len(found))
        return found

    async def requeue_unknown(self, worker_id: str, known: Sequence[UUID]) -> Sequence[LostJob]:
        """Queues the jobs of a process again that it does not do: the answer to its claim was lost, for example.

        Args:
            worker_id: the process, which calls this itself.
            known: the jobs that it does.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        values = {"worker_id": worker_id, "known": list(known)}
        async with self._database.transaction() as connection:
            return await _requeue(connection, _REQUEUE_UNKNOWN, self._first_retry_seconds, values)


async def _requeue(
    connection: AsyncConnection, statement: Any, first_seconds: float, values: dict[str, Any]
) -> list[LostJob]:
    code, message = DIED
    parameters = {
        "most": MAX_ATTEMPTS,
        "first": first_seconds,
        "longest": _LONGEST_RETRY_SECONDS,
        "limit": _MOST_REQUEUED,
        "code": code,
        "message": message,
    }
    found = [LostJob(**row) for row in (await connection.execute(statement, parameters | values)).mappings()]
    if failed := [job.id for job in found if job.has_failed]:
        await connection.execute(enhancements.REMOVE_UTTERANCES, {"ids": failed})
    return found


class JobClaims:
    """The jobs of this process. All methods raise StorageUnavailable while Postgres is unavailable.

    Methods that take a claim raise JobLost if the job is not this claim's any more; they have written nothing then.
    Those that return a bool return whether the job's cancellation was requested.
    """

    def __init__(
        self,
        database: Database,
        worker_id: str,
        check: Callable[[], None] = lambda: None,
        most_of_tenant: int = DEFAULT_MAX_JOBS,
    ) -> None:
        """
        Args:
            database: where the jobs are.
            worker_id: this process, which has a lease.
            check: raises if the lease is not held: a job claimed then would be taken at once.
            most_of_tenant: jobs of a tenant that run at a time, unless it has its own limit.
        """
        self._database = database
        self._worker_id = worker_id
        self._check = check
        self._most_of_tenant = most_of_tenant
        self._claims = 0

    async def claim(self) -> Claim | None:
        """Claims the next job; None if no job is due, or the tenants of all have as many running as they may.

        Uploads come first, because somebody waits for them; one claim in four prefers enhancements.
        """
        self._check()
        first_kind = "enhance" if self._claims % 4 == 3 else "upload"
        parameters = {"worker_id": self._worker_id, "most_of_tenant": self._most_of_tenant, "first_kind": first_kind}
        async with self._database.transaction() as connection:
            await connection.execute(_CLAIM_TURN)
            row = (await connection.execute(_CLAIM, parameters)).mappings().one_or_none()
        if row is None:
            return None
        self._claims += 1
        return _claim_of(row)

    async def begin(
        self, claim: Claim, chain: Sequence[UUID], chain_key: bytes, audio_seconds: float
    ) -> tuple[Claim, bool]:
        """Records which recording the job transcribes.

        Args:
            claim: the job.
            chain: the sessions of the recording, oldest first.
            chain_key: identifies the recording.
            audio_seconds: its length.

        Returns:
            the claim, which begins anew if an earlier one transcribed another recording, and whether the job's
            cancellation was requested.
        """
        values = {"chain": list(chain), "chain_key": chain_key, "audio_seconds": audio_seconds}
        async with self._database.transaction() as connection:
            await self._lock_session(connection, claim, _SHARE)
            row = (await connection.execute(_BEGIN, self._fence(claim) | values)).one_or_none()
            if row is None:
                raise JobLost
            if row.is_void:
                await connection.execute(enhancements.REMOVE_UTTERANCES, {"ids": [claim.id]})
                claim = replace(claim, plan=None, done_windows=0, done_seconds=0.0)
        return replace(claim, chain=tuple(chain), chain_key=chain_key), row.canceled

    async def restart(self, claim: Claim) -> Claim:
        """Removes what earlier attempts have found and transcribed. Returns the claim, which begins anew."""
        async with self._database.transaction() as connection:
            if (await connection.execute(_RESTART, self._fence(claim))).one_or_none() is None:
                raise JobLost
            await connection.execute(enhancements.REMOVE_UTTERANCES, {"ids": [claim.id]})
        return replace(claim, plan=None, done_windows=0, done_seconds=0.0)

    async def attempts(self, claim: Claim) -> int:
        """Claims since a window was last finished, this one included."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(_ATTEMPTS, self._fence(claim))).one_or_none()
        if row is None:
            raise JobLost
        return int(row[0])

    async def store_plan(self, claim: Claim, plan: Any) -> bool:
        """Records what listening has found, as JSON."""
        return await self._update(_PLAN, claim, {"plan": plan})

    async def note_step(self, claim: Claim, step: str) -> bool:
        """Records what the job does or waits for."""
        return await self._update(_STEP, claim, {"step": step})

    async def is_canceled(self, claim: Claim) -> bool:
        """Whether the job's cancellation was requested."""
        return await self._update(_IS_CANCELED, claim, {})

    async def store_window(
        self,
        claim: Claim,
        *,
        done_seconds: float,
        windows_before: int,
        done_windows: int,
        rate: float | None,
        first_index: int,
        utterances: Sequence[Utterance],
    ) -> tuple[int, bool]:
        """Stores the utterances of a window, with the progress of the job, in one transaction.

        Args:
            claim: the job.
            done_seconds: audio before this time is transcribed.
            windows_before: as many windows of the plan were before.
            done_windows: as many are now.
            rate: audio seconds per second.
            first_index: the index of the first utterance in the transcript.
            utterances: those of the window.

        Returns:
            the version that the job writes, and whether its cancellation was requested.
        """
        values = {
            "done_seconds": done_seconds,
            "windows_before": windows_before,
            "done_windows": done_windows,
            "rate": rate,
        }
        async with self._database.transaction() as connection:
            # Of two jobs of a session that begin at a time, the second sees the version of the first.
            await self._lock_session(connection, claim, _UPDATE if claim.version is None else _SHARE)
            row = (await connection.execute(_WINDOW, self._fence(claim) | values)).one_or_none()
            if row is None:
                raise JobLost
            if utterances:
                rows = utterance_parameters(utterances, first_index)
                rows |= {"session_id": claim.session_id, "version": row.version}
                await connection.execute(_INSERT_UTTERANCES, rows)
        return row.version, row.canceled

    async def complete(self, claim: Claim, new: NewVersion) -> Completion:
        """Completes the job with its transcript, which becomes the current one unless it is doubtful or linked."""
        async with self._database.transaction() as connection:
            chain = claim.chain or (claim.session_id,)
            # In the order of a deletion, which locks the sessions before it first.
            locked = set((await connection.execute(_LOCK_CHAIN, {"chain": list(chain)})).scalars())
            await self._lock_session(connection, claim, _UPDATE)
            if len(locked) < len(chain):
                return Completion.CHANGED
            completed = await connection.execute(_COMPLETE, self._fence(claim) | {"version": new.version})
            if completed.one_or_none() is None:
                return await self._uncompleted(connection, claim)
            values = {
                "id": claim.id,
                "model": new.model,
                "language": new.language,
                "audio_seconds": new.audio_seconds,
                "utterance_count": new.utterance_count,
                "word_count": new.word_count,
                "uri": new.uri,
                "verdict": new.verdict,
                "verdict_reason": new.verdict_reason,
            }
            await connection.execute(_INSERT_TRANSCRIPT, values)
            await connection.execute(_SET_FILE, values)
            if new.verdict == "accepted":
                await connection.execute(_SET_CURRENT, {"id": claim.id, "version": new.version})
            # Audio may have been added to the recording meanwhile.
            await enhancements.settle(connection, [claim.session_id])
        return Completion.COMPLETED

    async def _uncompleted(self, connection: AsyncConnection, claim: Claim) -> Completion:
        if (await connection.execute(_IS_COMPLETED, self._fence(claim))).one_or_none() is not None:
            return Completion.COMPLETED
        if (await connection.execute(_IS_CANCELED, self._fence(claim))).one_or_none() is None:
            raise JobLost
        return Completion.CANCELED

    async def fail(self, claim: Claim, code: str, message: str) -> None:
        """Ends the job as failed, and removes what it has transcribed."""
        await self._end(_FAIL, claim, {"code": code, "message": message})

    async def cancel(self, claim: Claim) -> None:
        """Ends the job as canceled, and removes what it has transcribed."""
        await self._end(_CANCEL, claim, {})

    async def requeue(self, claim: Claim, seconds: float = 0.0, *, is_counted: bool = False) -> None:
        """Queues the job again; it is due in so many seconds.

        Args:
            claim: the job.
            seconds: how long it waits.
            is_counted: whether this attempt counts as failed.
        """
        values = {"seconds": seconds, "uncounted": 0 if is_counted else 1}
        async with self._database.transaction() as connection:
            if (await connection.execute(_REQUEUE, self._fence(claim) | values)).one_or_none() is None:
                raise JobLost

    async def utterances(self, claim: Claim, version: int) -> list[Utterance]:
        """What the job has transcribed so far."""
        of_version = select(transcript_utterances)
        return await self._all(of_version.where(_u.session_id == claim.session_id, _u.version == version), _u.index)

    async def first_transcript(self, session_id: UUID) -> list[Utterance]:
        """Version 1 of a session: its live transcript, or the first one of an uploaded file."""
        live = await self._all(select(session_utterances).where(_l.session_id == session_id), _l.index)
        if live:
            return live
        of_version = select(transcript_utterances)
        return await self._all(of_version.where(_u.session_id == session_id, _u.version == 1), _u.index)

    async def _all(self, query: Select[Any], index: ColumnElement[int]) -> list[Utterance]:
        """The utterances of a query, read a thousand at a time."""
        found: list[Utterance] = []
        following = 0
        while True:
            async with self._database.transaction() as connection:
                page = query.where(index >= following).order_by(index).limit(_PAGE)
                rows = (await connection.execute(page)).mappings().all()
            found += [final_of(row).utterance for row in rows]
            if len(rows) < _PAGE:
                return found
            following = rows[-1]["index"] + 1

    async def is_machine_behind(self) -> bool:
        """Whether a server on this machine needs all of it for live sessions."""
        async with self._database.transaction() as connection:
            return bool((await connection.execute(_IS_MACHINE_BEHIND, {"host": machine()})).scalar_one())

    async def counts(self) -> list[JobCount]:
        """The queued and running jobs of all tenants."""
        async with self._database.transaction() as connection:
            return [JobCount(**row) for row in (await connection.execute(_COUNTS)).mappings()]

    def _fence(self, claim: Claim) -> dict[str, Any]:
        return {"id": claim.id, "claim": claim.number, "worker_id": self._worker_id}

    async def _update(self, statement: Any, claim: Claim, values: dict[str, Any]) -> bool:
        async with self._database.transaction() as connection:
            await self._lock_session(connection, claim, _SHARE)
            row = (await connection.execute(statement, self._fence(claim) | values)).one_or_none()
        if row is None:
            raise JobLost
        return bool(row[0])

    async def _end(self, statement: Any, claim: Claim, values: dict[str, Any]) -> None:
        async with self._database.transaction() as connection:
            if (await connection.execute(statement, self._fence(claim) | values)).one_or_none() is None:
                raise JobLost
            await connection.execute(enhancements.REMOVE_UTTERANCES, {"ids": [claim.id]})

    async def _lock_session(self, connection: AsyncConnection, claim: Claim, statement: Any) -> None:
        if (await connection.execute(statement, {"session_id": claim.session_id})).one_or_none() is None:
            raise JobLost


def _claim_of(row: RowMapping) -> Claim:
    request = JobRequest(row["model"], row["language"], tuple(row["vocabulary"]), row["linked"])
    return Claim(
        id=row["id"],
        number=row["claim"],
        tenant_id=row["tenant_id"],
        session_id=row["session_id"],
        kind=row["kind"],
        request=request,
        attempts=row["attempts"],
        waited_seconds=max(0.0, row["waited_seconds"]),
        done_seconds=row["done_seconds"],
        done_windows=row["done_windows"],
        rate=row["rate"],
        plan=row["plan"],
        chain=None if row["chain"] is None else tuple(row["chain"]),
        chain_key=row["chain_key"],
        version=row["version"],
        session_language=row["session_language"],
    )
