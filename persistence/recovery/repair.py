"""Repairs what `python -m persistence.verify --repair` can repair without losing anything."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import TextClause, text

from domain.session_id import created_at
from domain.transcript import Utterance
from persistence.errors import NotOwner, ObjectNotFound
from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.tables import HAS_SERVER, UNFINISHED
from persistence.recovery.finding import Finding
from persistence.recovery.spool_recovery import conclusion_of
from persistence.recovery.version_repair import VersionRepairer
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED, StoredSession
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool
from persistence.spool.spool_home import SpoolHome
from persistence.storing.audio_object import StoredAudio
from persistence.storing.deletion import delete_objects
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.spool_reconciliation import SpoolReconciliation, SpoolStatus
from persistence.storing.transcript_writer import TranscriptWriter, stored_finals

_MOST: Final = 100_000
_LOOK_SECONDS: Final = 0.5

# A process that stores more of a session meanwhile changes what these compare: the owner, or the figures.
_SET_LENGTH = text(f"""
    UPDATE realtime_sessions AS s SET audio_duration_seconds = :seconds, stored_bytes = :bytes
    WHERE s.id = :id AND s.worker_id = :worker_id AND s.deleted_at IS NULL AND NOT ({UNFINISHED})
        AND s.audio_duration_seconds = :old_seconds AND s.stored_bytes = :old_bytes
        AND (s.recover_after IS NULL OR NOT {HAS_SERVER})
    RETURNING s.id
""")  # noqa: S608 - no input
_SET_COUNT = text("""
    UPDATE realtime_sessions SET utterance_count = :utterances, word_count = :words
    WHERE id = :id AND worker_id = :worker_id AND utterance_count = :old_utterances RETURNING id
""")


class Repairer:
    """Repairs findings; each may be repaired again.

    All methods raise StorageUnavailable while Postgres, S3 or the disk is unavailable, and LeaseLost when this process
    is considered dead.
    """

    def __init__(
        self, database: Database, objects: ObjectStore, lease: Lease, worker_id: str, *, orphan_age_seconds: float
    ) -> None:
        self._database = database
        self._objects = objects
        self._lease = lease
        self._rows = SessionRows(database, worker_id, lease.check)
        self._ownership = Ownership(database, worker_id, lease.check)
        self._remote_recovery = RemoteRecovery(objects, self._rows)
        self._reconciliation = SpoolReconciliation(objects, self._rows, self._ownership)
        self._orphan_age = timedelta(seconds=orphan_age_seconds)
        self._repairs: dict[str, Callable[[UUID, Finding], Awaitable[bool]]] = {
            "delete_unfinished": self._finish_delete,
            "no_server": self._is_ended,
            "audio_length": self._set_length,
            "transcript_missing": self._write_transcript,
            "transcript_damaged": self._write_transcript,
            "transcript_differs": self._write_transcript,
            "utterance_count": self._set_count,
            "deleted_left": self._delete_orphan,
            "tail_left": self._delete_tail,
            "upload_left": self._abort_uploads,
            "waveform_stale": self._delete_waveform,
            "spool_left": self._settle_spool,
            "spool_has_more": self._settle_spool,
            "spool_without_row": self._settle_spool,
            **VersionRepairer(database, objects, lease.check).repairs,
        }

    async def take_over(self) -> int:
        """Ends the sessions of dead servers; returns how many. To be called before findings are repaired."""
        ended = 0
        while not self._lease.is_established and await self._ownership.has_expired():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_LOOK_SECONDS)
        await self._ownership.reap(0.0, _MOST, INTERRUPTED, datetime.now(UTC), timeline=self._lease.timeline)
        while due := await self._ownership.due(100):
            for session_id in due:
                ended += await self._end(session_id)
        return ended

    async def _end(self, session_id: UUID) -> bool:
        """Ends a session, unless another process owns it by now."""
        try:
            if not await self._ownership.begin_recovery(session_id):
                return False
            session = await self._ownership.read_own(session_id)
            if session is not None:
                await self._remote_recovery.end(session)
        except NotOwner:
            return False
        finally:
            self._ownership.end_recovery(session_id)
        return session is not None

    async def repair(self, finding: Finding) -> bool:
        """Repairs one finding; returns whether it is repaired."""
        action = self._repairs.get(finding.kind)
        try:
            return action is not None and finding.session_id is not None and await action(finding.session_id, finding)
        except NotOwner:
            return False  # a server owns the session by now

    async def _is_ended(self, session_id: UUID, _: Finding) -> bool:
        # `take_over` has ended it, if that was possible.
        return await self._ownership.read_own(session_id) is not None

    async def _finish_delete(self, session_id: UUID, _: Finding) -> bool:
        await self._remote_recovery.delete(session_id)
        return True

    async def _set_length(self, session_id: UUID, finding: Finding) -> bool:
        session = await self._ownership.read(session_id)
        if session is None:
            return False
        try:
            size = await self._audio_of(session).audio_bytes()
        except (ObjectNotFound, ValueError):
            return False  # the object has changed since it was found
        values = {
            "id": session_id,
            "worker_id": session.worker_id,
            "old_seconds": session.audio_duration_seconds,
            "old_bytes": session.stored_bytes,
            "seconds": session.wav.seconds(size),
            "bytes": size,
        }
        return await self._update(_SET_LENGTH, values)

    async def _set_count(self, session_id: UUID, _: Finding) -> bool:
        session, finals = await self._ownership.read(session_id), await self._rows.utterances(session_id)
        return session is not None and await self._update_count(session, finals)

    async def _update_count(self, session: StoredSession, finals: Sequence[Utterance]) -> bool:
        values = {
            "id": session.id,
            "worker_id": session.worker_id,
            "old_utterances": session.utterance_count,
            "utterances": len(finals),
            "words": sum(each.word_count for each in finals),
        }
        return await self._update(_SET_COUNT, values)

    async def _update(self, statement: TextClause, values: dict[str, object]) -> bool:
        self._lease.check()
        async with self._database.transaction() as connection:
            return (await connection.execute(statement, values)).one_or_none() is not None

    async def _write_transcript(self, session_id: UUID, _: Finding) -> bool:
        session = await self._ownership.read(session_id)
        if session is None:
            return False
        # The rows of a stored session are written in the name of its owner.
        owned_rows = SessionRows(self._database, session.worker_id, self._lease.check)
        writer = TranscriptWriter(self._objects, owned_rows, self._lease.check)
        transcript = await writer.collect(session_id, session.language, from_document=True)
        finals = transcript.finals
        if transcript.restored:
            await self._update_count(session, finals)
            stored = await stored_finals(self._objects, session_id)
            if [each.text for each in stored] == [each.text for each in finals]:
                return True
        if not finals:
            return False
        await writer.put(session_id, transcript, session.audio_duration_seconds)
        return True

    async def _delete_orphan(self, session_id: UUID, _: Finding) -> bool:
        if datetime.now(UTC) - created_at(session_id) < self._orphan_age:
            return False
        await delete_objects(self._objects, session_id)
        return True

    async def _delete_tail(self, session_id: UUID, finding: Finding) -> bool:
        if not await self._has_recording(session_id):
            return False
        await self._objects.delete_all([finding.path])
        return True

    async def _delete_waveform(self, _session_id: UUID, finding: Finding) -> bool:
        # It is made again when it is asked for.
        await self._objects.delete_all([finding.path])
        return True

    async def _abort_uploads(self, session_id: UUID, finding: Finding) -> bool:
        if not await self._has_recording(session_id):
            return False
        await self._objects.abort_uploads(finding.path)
        return True

    async def _has_recording(self, session_id: UUID) -> bool:
        """Whether the recording exists, so that what it was built from is superfluous."""
        session = await self._ownership.read(session_id)
        if session is None:
            return False
        try:
            return await self._audio_of(session).audio_bytes() >= session.stored_bytes
        except (ObjectNotFound, ValueError):
            return False

    def _audio_of(self, session: StoredSession) -> StoredAudio:
        return StoredAudio(self._objects, session.id, session.wav)

    async def _settle_spool(self, session_id: UUID, finding: Finding) -> bool:
        """Does what a server that starts on this spool does. A living server that has the spool does it itself."""
        directory = Path(finding.path)
        home = await asyncio.to_thread(
            SpoolHome.claim, directory.parent.parent, directory.parent.name, SpoolBudget(sys.maxsize)
        )
        if home is None:
            return False
        try:
            spool = await asyncio.to_thread(SessionSpool.open, directory, home.budget)
            return spool is None or await self._settle(session_id, spool)
        except OSError:
            return False
        finally:
            await asyncio.to_thread(home.release, delete=True)

    async def _settle(self, session_id: UUID, spool: SessionSpool) -> bool:
        conclusion = await asyncio.to_thread(conclusion_of, spool)
        status = await self._reconciliation.settle(spool, conclusion.progress)
        if status is SpoolStatus.GONE:
            await self._remote_recovery.delete(session_id)
        if status in (SpoolStatus.GONE, SpoolStatus.STORED):
            await asyncio.to_thread(spool.delete)
            return True
        return False
