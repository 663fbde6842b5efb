"""What `python -m persistence.verify --repair` does: mends what can be mended without losing anything."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from persistence.budget import SpoolBudget
from persistence.checks import Finding
from persistence.database import Database
from persistence.errors import NotOwner
from persistence.objects import ObjectStore
from persistence.ownership import Ownership
from persistence.reaper import INTERRUPTED
from persistence.recovery import conclusion_of
from persistence.rows import SessionRows
from persistence.salvage import Salvage, put_transcript, remove_objects
from persistence.session_id import created_at
from persistence.spool import SessionSpool
from persistence.spool_home import SpoolHome
from persistence.surplus import Standing, Surplus
from persistence.wav import WavFormat, data_bytes

_MOST = 100_000

_FORMAT = text("""
    SELECT encoding, sample_rate, channels, language, audio_duration_seconds FROM realtime_sessions WHERE id = :id
""")
_SET_LENGTH = text("""
    UPDATE realtime_sessions SET audio_duration_seconds = :seconds, stored_bytes = :bytes WHERE id = :id
""")
_SET_COUNT = text("""
    UPDATE realtime_sessions SET utterance_count = (SELECT count(*) FROM session_utterances WHERE session_id = :id)
    WHERE id = :id
""")


class Mender:
    """Mends findings. Each may be mended again; all methods raise StorageUnavailable when a part does not answer."""

    def __init__(self, database: Database, objects: ObjectStore, worker_id: str, *, orphan_age_seconds: float) -> None:
        self._database = database
        self._objects = objects
        self._rows = SessionRows(database, worker_id)
        self._ownership = Ownership(database, worker_id)
        self._salvage = Salvage(objects, self._rows)
        self._surplus = Surplus(objects, self._rows, self._ownership)
        self._orphan_age = timedelta(seconds=orphan_age_seconds)
        self._ways: dict[str, Callable[[UUID, Finding], Awaitable[bool]]] = {
            "delete_unfinished": self._finish_delete,
            "no_server": self._is_ended,
            "audio_length": self._set_length,
            "transcript_missing": self._write_transcript,
            "transcript_damaged": self._write_transcript,
            "transcript_differs": self._write_transcript,
            "utterance_count": self._set_count,
            "object_without_row": self._remove_orphan,
            "tail_left": self._remove_object,
            "upload_left": self._abort_uploads,
            "spool_left": self._settle_spool,
            "spool_has_more": self._settle_spool,
            "spool_without_row": self._settle_spool,
        }

    async def take_over(self) -> int:
        """Ends the sessions that no living server has; says how many. To be called before the findings are mended."""
        ended = 0
        await self._ownership.reap(0.0, _MOST, INTERRUPTED, datetime.now(UTC))
        while due := await self._ownership.due(100):
            for session_id in due:
                remains = await self._ownership.remains(session_id)
                if remains is not None and await self._ownership.begin_recovery(session_id):
                    await self._salvage.end(remains)
                    self._ownership.end_recovery(session_id)
                    ended += 1
        return ended

    async def mend(self, finding: Finding) -> bool:
        """Mends one; says whether it is."""
        way = self._ways.get(finding.kind)
        return way is not None and finding.session_id is not None and await way(finding.session_id, finding)

    async def _is_ended(self, session_id: UUID, _: Finding) -> bool:
        # By take_over, if it could be.
        return await self._ownership.remains(session_id) is not None

    async def _finish_delete(self, session_id: UUID, _: Finding) -> bool:
        await self._salvage.delete(session_id)
        return True

    async def _set_length(self, session_id: UUID, finding: Finding) -> bool:
        async with self._database.transaction() as connection:
            row = (await connection.execute(_FORMAT, {"id": session_id})).one_or_none()
            if row is None:
                return False
            wav = WavFormat(row.encoding, row.sample_rate, row.channels)
            size = data_bytes((await self._objects.read_start(finding.path, wav.header_bytes))[: wav.header_bytes])
            await connection.execute(_SET_LENGTH, {"id": session_id, "seconds": wav.seconds(size), "bytes": size})
        return True

    async def _set_count(self, session_id: UUID, _: Finding) -> bool:
        async with self._database.transaction() as connection:
            await connection.execute(_SET_COUNT, {"id": session_id})
        return True

    async def _write_transcript(self, session_id: UUID, _: Finding) -> bool:
        said = await self._rows.utterances(session_id)
        async with self._database.transaction() as connection:
            row = (await connection.execute(_FORMAT, {"id": session_id})).one_or_none()
        if row is None or not said:
            return False
        await put_transcript(self._objects, session_id, row.language, row.audio_duration_seconds, said)
        return True

    async def _remove_orphan(self, session_id: UUID, _: Finding) -> bool:
        if datetime.now(UTC) - created_at(session_id) < self._orphan_age:
            return False
        await remove_objects(self._objects, session_id)
        return True

    async def _remove_object(self, _: UUID, finding: Finding) -> bool:
        await self._objects.delete_all([finding.path])
        return True

    async def _abort_uploads(self, session_id: UUID, finding: Finding) -> bool:
        await self._objects.abort_uploads(finding.path)
        return True

    async def _settle_spool(self, session_id: UUID, finding: Finding) -> bool:
        """As a server would that starts on this spool. One that lives and has it does that itself."""
        directory = Path(finding.path)
        home = await asyncio.to_thread(
            SpoolHome.claim, directory.parent.parent, directory.parent.name, SpoolBudget(sys.maxsize)
        )
        if home is None:
            return False
        try:
            spool = await asyncio.to_thread(SessionSpool.open, directory, home.budget)
            return spool is None or await self._settle(session_id, spool)
        except (NotOwner, OSError):
            return False
        finally:
            await asyncio.to_thread(home.release, remove=True)

    async def _settle(self, session_id: UUID, spool: SessionSpool) -> bool:
        conclusion = await asyncio.to_thread(conclusion_of, spool)
        standing = await self._surplus.settle(spool, conclusion.progress)
        if standing is Standing.GONE:
            await self._salvage.delete(session_id)
        if standing in (Standing.GONE, Standing.STORED):
            await asyncio.to_thread(spool.remove)
            return True
        return False
