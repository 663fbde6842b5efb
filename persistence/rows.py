"""The statements of a process that runs sessions. Each names the owner, so that a late one changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Double, Integer, Text, Uuid, bindparam, func, text, update
from sqlalchemy.dialects.postgresql import insert

from persistence.database import Database
from persistence.records import Conclusion, Progress, SessionStart, StoredObjects
from persistence.tables import realtime_sessions

_t = realtime_sessions.c

_PROGRESS = text("""
    UPDATE realtime_sessions AS s
    SET audio_duration_seconds = greatest(s.audio_duration_seconds, p.seconds),
        utterance_count = greatest(s.utterance_count, p.utterances),
        word_count = greatest(s.word_count, p.words),
        language = p.language
    FROM unnest(:ids, :seconds, :utterances, :words, :languages) AS p(id, seconds, utterances, words, language)
    WHERE s.id = p.id AND s.worker_id = :worker_id AND s.status = 'active'
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("seconds", type_=ARRAY(Double)),
    bindparam("utterances", type_=ARRAY(Integer)),
    bindparam("words", type_=ARRAY(Integer)),
    bindparam("languages", type_=ARRAY(Text)),
)


class SessionRows:
    """Writes the rows of sessions. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, starts: Sequence[SessionStart]) -> None:
        """Creates rows; one that is there already stays as it is."""
        statement = insert(realtime_sessions).on_conflict_do_nothing(index_elements=["id"])
        async with self._database.transaction() as connection:
            await connection.execute(statement, [asdict(start) for start in starts])

    async def update_progress(self, worker_id: str, progress: Mapping[UUID, Progress]) -> None:
        """Writes the figures of many running sessions in one statement."""
        values = list(progress.values())
        parameters = {
            "worker_id": worker_id,
            "ids": list(progress),
            "seconds": [value.audio_seconds for value in values],
            "utterances": [value.utterances for value in values],
            "words": [value.words for value in values],
            "languages": [value.language for value in values],
        }
        async with self._database.transaction() as connection:
            await connection.execute(_PROGRESS, parameters)

    async def conclude(self, worker_id: str, session_id: UUID, conclusion: Conclusion) -> bool:
        """Ends a session; says whether this worker still has it.

        Figures never fall and a language found stays: a spool that a dead process left may know less than the row.
        """
        progress = conclusion.progress
        statement = (
            update(realtime_sessions)
            .where(_t.id == session_id, _t.worker_id == worker_id, _t.deleted_at.is_(None))
            .values(
                status=conclusion.ending.status,
                error=conclusion.ending.error,
                ended_at=conclusion.ended_at,
                audio_duration_seconds=func.greatest(_t.audio_duration_seconds, progress.audio_seconds),
                utterance_count=func.greatest(_t.utterance_count, progress.utterances),
                word_count=func.greatest(_t.word_count, progress.words),
                language=func.coalesce(func.nullif(progress.language, "auto"), _t.language),
            )
            .returning(_t.id)
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).one_or_none() is not None

    async def set_stored(self, worker_id: str, session_id: UUID, stored: StoredObjects) -> bool:
        """Notes where the objects are; says whether the session is still there."""
        statement = (
            update(realtime_sessions)
            .where(_t.id == session_id, _t.worker_id == worker_id, _t.deleted_at.is_(None))
            .values(audio_uri=stored.audio_uri, transcript_uri=stored.transcript_uri)
            .returning(_t.id)
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).one_or_none() is not None

    async def end_active(
        self, worker_id: str, status: str, error: str, ended_at: datetime, session_ids: Sequence[UUID] | None = None
    ) -> int:
        """Ends active sessions of a worker, all or those named; says how many."""
        statement = (
            update(realtime_sessions)
            .where(_t.worker_id == worker_id, _t.status == "active")
            .values(status=status, error=error, ended_at=ended_at)
        )
        if session_ids is not None:
            statement = statement.where(_t.id == func.any(bindparam("ids", list(session_ids), type_=ARRAY(Uuid))))
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount
