"""The statements of a process that runs sessions.

Each statement names the owner: a process that was considered dead, and has lost its sessions, changes no row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Double,
    Integer,
    Text,
    Update,
    Uuid,
    bindparam,
    case,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.tenancy import Caller
from domain.transcript import Utterance
from persistence.errors import NotOwner, RowLost
from persistence.postgres import admission, enhancements, lost_rows
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance, final_of, insert_finals
from persistence.postgres.lost_rows import Fate, RowState
from persistence.postgres.storage_usage import StorageUsage
from persistence.postgres.tables import realtime_sessions, session_parts, session_utterances
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects, StoredPart

_t = realtime_sessions.c

_RESTORED_AT_ONCE: Final = 100
"""Sessions that one transaction inserts again: each takes two or three statements."""

_PROGRESS = text("""
    UPDATE realtime_sessions AS s
    SET audio_duration_seconds = greatest(s.audio_duration_seconds, p.seconds),
        utterance_count = greatest(s.utterance_count, p.utterances),
        word_count = greatest(s.word_count, p.words),
        language = p.language,
        stored_bytes = greatest(s.stored_bytes, p.stored_bytes),
        processed_seconds = greatest(s.processed_seconds, p.processed)
    FROM unnest(:ids, :seconds, :utterances, :words, :languages, :stored_bytes, :processed)
        AS p(id, seconds, utterances, words, language, stored_bytes, processed)
    WHERE s.id = p.id AND s.worker_id = :worker_id AND s.status = 'active'
""").bindparams(
    *arrays(
        ids=Uuid,
        seconds=Double,
        utterances=Integer,
        words=Integer,
        languages=Text,
        stored_bytes=BigInteger,
        processed=Double,
    )
)

# Rows are always locked in the same order, because progress and parts are written over two connections.
_LOCK = text("""
    SELECT id, audio_duration_seconds FROM realtime_sessions
    WHERE id = ANY(:ids) AND worker_id = :worker_id ORDER BY id FOR NO KEY UPDATE
""").bindparams(*arrays(ids=Uuid))

# The row is locked before its parts are written: a process that takes the session over waits, and then sees them all.
_PARTS = text("""
    WITH new AS (
        SELECT * FROM unnest(:ids, :uploads, :numbers, :etags, :sizes) AS n(id, upload_id, number, etag, size)
    ), owned AS (
        UPDATE realtime_sessions AS s SET upload_id = n.upload_id
        FROM (SELECT DISTINCT ON (id) id, upload_id FROM new) AS n
        WHERE s.id = n.id AND s.worker_id = :worker_id AND s.deleted_at IS NULL
        RETURNING s.id
    ), written AS (
        INSERT INTO session_parts (session_id, part_number, etag, size)
        SELECT n.id, n.number, n.etag, n.size FROM new AS n JOIN owned USING (id)
        ON CONFLICT (session_id, part_number) DO UPDATE SET etag = excluded.etag, size = excluded.size
    )
    SELECT id FROM owned
""").bindparams(*arrays(ids=Uuid, uploads=Text, numbers=Integer, etags=Text, sizes=Integer))


@dataclass(frozen=True, slots=True)
class Upload:
    """A session's multipart upload, as Postgres has it."""

    upload_id: str | None
    """None before the first part is stored."""
    parts: tuple[StoredPart, ...]
    """In the order of their numbers; some may be missing, above all part 1."""
    is_stored: bool = False
    """Whether the upload is complete and its object is in the row; its parts are deleted then."""


class SessionRows:
    """Writes the rows of one process's sessions.

    All methods raise StorageUnavailable while Postgres is unavailable. Each write first calls `check`, which raises if
    this process may not write.
    """

    def __init__(self, database: Database, worker_id: str, check: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self.worker_id = worker_id
        self._check = check
        self.usage = StorageUsage()
        """The count of the process, which uploads share."""

    async def insert(self, starts: Sequence[SessionStart]) -> None:
        """Inserts rows; existing ones stay unchanged."""
        self._check()
        statement = insert(realtime_sessions).on_conflict_do_nothing(index_elements=["id"])
        async with self._database.transaction() as connection:
            await connection.execute(statement, [start.as_row() for start in starts])

    async def admit(self, start: SessionStart, caller: Caller | None) -> None:
        """Inserts the row of a session if its caller may begin it, and links it to the session that it continues.

        The caller's token is spent. Admissions of one tenant are serialised across all servers, so that two at the same
        time cannot both take the last place; sessions of a dead server count until its lease has expired. The session
        that is continued does not count, although its last finals may still be in progress. A session that continued
        the same one, and has ended without having received audio, is unlinked from it.

        Raises:
            TooManySessions: the tenant runs as many sessions as it may.
            TokenSpent: the token has begun another session, or has expired.
            StorageQuotaExceeded: the session is to be stored, and the tenant has used up its storage.
            SessionNotFound: the tenant does not have the session to continue.
            SessionResumed: another session continues it.
        """
        self._check()
        async with self._database.transaction() as connection:
            if caller is not None:
                await self._refuse_too_much(connection, start, caller)
                await admission.admit(connection, caller, start.previous_session_id)
            if start.previous_session_id is not None:
                if start.enhance_on_end:
                    await enhancements.lock_predecessors(connection, [start.previous_session_id])
                await admission.link(connection, start.tenant_id, start.previous_session_id)
            await connection.execute(insert(realtime_sessions).values(start.as_row()))
            if start.previous_session_id is not None and start.enhance_on_end:
                await enhancements.settle_predecessors(connection, start.id)

    async def _refuse_too_much(self, connection: AsyncConnection, start: SessionStart, caller: Caller) -> None:
        limit = caller.limits.max_storage_bytes
        if limit is not None and start.stores:
            continues = start.previous_session_id is not None
            await self.usage.refuse_too_much(connection, start.tenant_id, limit, continues=continues)

    async def check_may_begin(self, caller: Caller, instead_of: UUID) -> None:
        """Checks whether `admit` would admit the caller now if `instead_of` had ended. Nothing is spent or taken.

        Raises:
            TooManySessions, TokenSpent: as `admit` would raise.
        """
        if caller.limits.max_sessions is None and caller.token_hash is None:
            return
        async with self._database.transaction() as connection:
            await admission.refuse(connection, caller, instead_of)

    async def write(
        self, progress: Mapping[UUID, Progress], finals: Sequence[NumberedUtterance] = ()
    ) -> dict[UUID, float]:
        """Writes the progress of many running sessions and their new finals, one statement each, in one transaction.

        Existing finals stay unchanged. Nothing is written for a session that another process owns, or whose row is
        missing.

        Returns:
            the sessions that this process owns, with the seconds of audio in their rows before the write.
        """
        self._check()
        if not progress and not finals:
            return {}
        async with self._database.transaction() as connection:
            before = await self._lock(connection, [*progress, *(each.session_id for each in finals)])
            if progress:
                await connection.execute(_PROGRESS, self._progress_parameters(progress))
            if finals:
                await insert_finals(connection, self.worker_id, finals)
        return before

    async def _lock(self, connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, float]:
        found = await connection.execute(_LOCK, {"ids": list(set(ids)), "worker_id": self.worker_id})
        return {row.id: row.audio_duration_seconds for row in found}

    async def restore(self, starts: Sequence[SessionStart]) -> frozenset[UUID]:
        """Inserts lost rows again, as active sessions of this process; returns those that were missing.

        To be called only for sessions that this process runs or has to end, or whose `fate` is LOST. Deleted sessions
        stay deleted. The rows are inserted in several transactions, each within its deadline; those that are committed
        before a failure exist at the next call.
        """
        sessions: set[UUID] = set()
        # The earlier sessions first: one may continue another of them.
        ordered = sorted(starts, key=lambda start: (start.started_at, start.id))
        for at in range(0, len(ordered), _RESTORED_AT_ONCE):
            self._check()
            async with self._database.transaction() as connection:
                batch = ordered[at : at + _RESTORED_AT_ONCE]
                restored = await lost_rows.restore(connection, self.worker_id, batch)
            for tenant_id in restored.tenants:
                lost_rows.note_restored("tenants", tenant_id)
            for session_id in restored.sessions:
                lost_rows.note_restored("realtime_sessions", session_id)
            sessions |= restored.sessions
        return frozenset(sessions)

    async def row_states(self, session_ids: Sequence[UUID]) -> list[RowState]:
        """The states of these sessions in Postgres, one for each."""
        async with self._database.transaction() as connection:
            return await lost_rows.row_states(connection, self.worker_id, session_ids)

    async def fate(self, session_id: UUID) -> Fate:
        """The fate of a session's row, whichever process owns it."""
        async with self._database.transaction() as connection:
            return await lost_rows.fate(connection, session_id)

    async def exists(self, session_id: UUID) -> bool:
        """Whether a session of this process exists; False if it was deleted.

        Raises:
            NotOwner: another process owns it.
            RowLost: its row is missing, and it was not deleted.
        """
        async with self._database.transaction() as connection:
            query = select(_t.id).where(_t.id == session_id, _t.worker_id == self.worker_id, _t.deleted_at.is_(None))
            if (await connection.execute(query)).one_or_none() is not None:
                return True
            return await self._refuse_unless_deleted(connection, session_id)

    def _progress_parameters(self, progress: Mapping[UUID, Progress]) -> dict[str, object]:
        values = list(progress.values())
        return {
            "worker_id": self.worker_id,
            "ids": list(progress),
            "seconds": [value.audio_seconds for value in values],
            "utterances": [value.utterances for value in values],
            "words": [value.words for value in values],
            "languages": [value.language for value in values],
            "stored_bytes": [value.stored_bytes for value in values],
            "processed": [value.processed_seconds for value in values],
        }

    async def add_parts(self, parts: Sequence[tuple[UUID, StoredPart]]) -> frozenset[UUID]:
        """Writes parts that S3 has, of many sessions in one statement; existing ones are replaced.

        Returns the sessions whose parts were written: the others belong to other processes now, or their rows are lost.
        One call must not contain a part twice.
        """
        self._check()
        parameters = {
            "worker_id": self.worker_id,
            "ids": [session_id for session_id, _ in parts],
            "uploads": [part.upload_id for _, part in parts],
            "numbers": [part.number for _, part in parts],
            "etags": [part.etag for _, part in parts],
            "sizes": [part.size for _, part in parts],
        }
        async with self._database.transaction() as connection:
            await self._lock(connection, [session_id for session_id, _ in parts])
            return frozenset((await connection.execute(_PARTS, parameters)).scalars())

    async def upload(self, session_id: UUID) -> Upload:
        """A session's multipart upload, as Postgres has it."""
        async with self._database.transaction() as connection:
            query = select(_t.upload_id, _t.audio_uri).where(_t.id == session_id)
            upload_id, uri = (await connection.execute(query)).one_or_none() or (None, None)
            rows = await connection.execute(
                select(session_parts.c.part_number, session_parts.c.etag, session_parts.c.size)
                .where(session_parts.c.session_id == session_id)
                .order_by(session_parts.c.part_number)
            )
            return Upload(upload_id, tuple(StoredPart(str(upload_id), *row) for row in rows), uri is not None)

    async def delete_upload(self, session_id: UUID) -> None:
        """Deletes an upload that is no longer in S3, with its parts."""
        self._check()
        async with self._database.transaction() as connection:
            await self._write_own(connection, session_id, update(realtime_sessions).values(upload_id=None))
            await connection.execute(delete(session_parts).where(session_parts.c.session_id == session_id))

    async def has_utterances(self, session_id: UUID, count: int) -> bool:
        """Whether the first `count` finals of a session are written."""
        column = session_utterances.c
        query = select(func.count()).where(column.session_id == session_id, column.index < count)
        async with self._database.transaction() as connection:
            return (await connection.execute(query)).scalar_one() == count

    async def utterances(self, session_id: UUID) -> list[Utterance]:
        """The written finals of a session in their order."""
        return list((await self.indexed_utterances(session_id)).values())

    async def indexed_utterances(self, session_id: UUID) -> dict[int, Utterance]:
        """The written finals of a session by their indexes, of which some may be missing."""
        query = (
            select(session_utterances)
            .where(session_utterances.c.session_id == session_id)
            .order_by(session_utterances.c.index)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return {final.index: final.utterance for final in map(final_of, rows)}

    async def audio_seconds(self, session_id: UUID) -> float:
        """The length of the audio in the row; 0 without a row."""
        async with self._database.transaction() as connection:
            found = await connection.execute(select(_t.audio_duration_seconds).where(_t.id == session_id))
            return found.scalar_one_or_none() or 0.0

    async def conclude(self, session_id: UUID, conclusion: Conclusion) -> bool:
        """Ends a session; returns False if it was deleted.

        Progress never decreases, and the language of the greater number of finals is kept: the spool of a dead process
        may contain less than the row.

        Raises:
            NotOwner: another process owns it.
            RowLost: its row is missing, and it was not deleted.
        """
        self._check()
        progress = conclusion.progress
        statement = update(realtime_sessions).values(
            status=conclusion.end_reason.status,
            error=conclusion.end_reason.error,
            ended_at=conclusion.ended_at,
            audio_duration_seconds=func.greatest(_t.audio_duration_seconds, progress.audio_seconds),
            utterance_count=func.greatest(_t.utterance_count, progress.utterances),
            word_count=func.greatest(_t.word_count, progress.words),
            processed_seconds=func.greatest(_t.processed_seconds, progress.processed_seconds),
            language=case(
                (_t.utterance_count > progress.utterances, _t.language),
                else_=func.coalesce(func.nullif(progress.language, "auto"), _t.language),
            ),
        )
        async with self._database.transaction() as connection:
            return await self._write_own(connection, session_id, statement)

    async def set_stored(
        self,
        session_id: UUID,
        stored: StoredObjects,
        *,
        has_tails: bool = False,
        audio_seconds: float | None = None,
        stored_bytes: int | None = None,
        utterances: Sequence[Utterance] | None = None,
        language: str | None = None,
        progress: Progress = Progress(),  # noqa: B008 - frozen
    ) -> bool:
        """Writes the URIs of the stored objects and deletes the upload; returns False if the session was deleted.

        A session with `enhance_on_end` gets its batch job in the same transaction.

        Args:
            has_tails: its tail objects still exist; call `mark_tails_deleted` once they are deleted.
            audio_seconds: the length of the stored audio, where it may differ from that of the received audio.
            stored_bytes: bytes of audio in the object.
            utterances: the finals in the stored transcript, which the row counts from now on; None for a session
                without a transcript.
            language: of that transcript, if it is known.
            progress: figures that the row may not have yet.

        Raises:
            NotOwner: another process owns it.
            RowLost: its row is missing, and it was not deleted.
        """
        self._check()
        statement = update(realtime_sessions).values(
            audio_uri=stored.audio_uri,
            transcript_uri=stored.transcript_uri,
            upload_id=None,
            has_tails=has_tails,
            recover_after=None,
            audio_duration_seconds=_t.audio_duration_seconds if audio_seconds is None else audio_seconds,
            stored_bytes=_t.stored_bytes if stored_bytes is None else stored_bytes,
            language=_t.language if language is None else language,
            **_counts(utterances, progress),
        )
        async with self._database.transaction() as connection:
            earlier = await enhancements.lock_predecessors(connection, [session_id])
            exists = await self._write_own(connection, session_id, statement)
            if exists:
                await connection.execute(delete(session_parts).where(session_parts.c.session_id == session_id))
                await enhancements.settle(connection, [*earlier, session_id])
            return exists

    async def mark_tails_deleted(self, session_id: UUID) -> None:
        """Notes that the tail objects of a stored session are deleted."""
        self._check()
        async with self._database.transaction() as connection:
            await self._write_own(connection, session_id, update(realtime_sessions).values(has_tails=False))

    async def soft_delete(self, session_id: UUID) -> None:
        """Soft-deletes a session of this process, which it ends if it is active: the upload of a file that failed."""
        self._check()
        statement = (
            update(realtime_sessions)
            .where(_t.id == session_id, _t.worker_id == self.worker_id, _t.deleted_at.is_(None))
            .values(
                deleted_at=func.now(),
                ended_at=func.coalesce(_t.ended_at, func.now()),
                status=case((_t.status == "active", "interrupted"), else_=_t.status),
                # No process has to complete an object that there is not.
                store_audio=_t.audio_uri.is_not(None),
            )
        )
        async with self._database.transaction() as connection:
            await connection.execute(statement)

    async def delete_row(self, session_id: UUID) -> None:
        """Deletes the row of a soft-deleted session whose objects are deleted; other rows stay."""
        self._check()
        statement = delete(realtime_sessions).where(_t.id == session_id, _t.deleted_at.is_not(None))
        async with self._database.transaction() as connection:
            await connection.execute(statement)

    async def end_refused(self, error: str, ended_at: datetime, session_ids: Sequence[UUID]) -> int:
        """Ends sessions of this process that were refused before they began; returns their number.

        They store nothing, so their rows must not request storage: their objects would be awaited forever. Nor do they
        continue anything: the batch jobs of the sessions before them are queued again.
        """
        self._check()
        refused = func.any(bindparam("ids", list(session_ids), type_=ARRAY(Uuid)))
        statement = (
            update(realtime_sessions)
            .where(_t.worker_id == self.worker_id, _t.status == "active", _t.id == refused)
            .values(
                status="error",
                error=error,
                ended_at=ended_at,
                store_audio=False,
                store_transcript=False,
                enhance_on_end=False,
            )
        )
        async with self._database.transaction() as connection:
            earlier = await enhancements.lock_predecessors(connection, session_ids)
            count = (await connection.execute(statement)).rowcount
            await enhancements.settle(connection, earlier)
            return count

    async def _write_own(self, connection: AsyncConnection, session_id: UUID, statement: Update) -> bool:
        """Runs an update on a session of this process; returns False if the session was deleted.

        Raises:
            NotOwner: another process owns it.
            RowLost: its row is missing, and it was not deleted.
        """
        own = statement.where(_t.id == session_id, _t.worker_id == self.worker_id, _t.deleted_at.is_(None))
        if (await connection.execute(own)).rowcount:
            return True
        return await self._refuse_unless_deleted(connection, session_id)

    async def _refuse_unless_deleted(self, connection: AsyncConnection, session_id: UUID) -> bool:
        match await lost_rows.fate(connection, session_id):
            case Fate.EXISTS:
                raise NotOwner
            case Fate.DELETED:
                return False
            case _:
                raise RowLost


def _counts(utterances: Sequence[Utterance] | None, progress: Progress) -> dict[str, Any]:
    if utterances is not None:
        return {"utterance_count": len(utterances), "word_count": sum(each.word_count for each in utterances)}
    return {
        "utterance_count": func.greatest(_t.utterance_count, progress.utterances),
        "word_count": func.greatest(_t.word_count, progress.words),
    }
