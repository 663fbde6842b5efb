"""Checks whether rows, objects, unfinished uploads and spools agree. Reads only.

Sessions that a living server works on are left out: they may be unfinished.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, Uuid, text

from domain.errors import InvalidSessionId
from domain.session_id import parse_session_id
from persistence.errors import ObjectNotFound
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.lost_rows import deleted_among
from persistence.postgres.rows import SessionRows
from persistence.postgres.stored_session import STORED_SESSION_SQL, stored_session
from persistence.postgres.tables import HAS_SERVER
from persistence.recovery.finding import Finding
from persistence.recovery.version_checks import VersionVerifier
from persistence.s3.keys import (
    SESSIONS_PREFIX,
    audio_key,
    is_waveform_key,
    parse_tail_key,
    session_of_key,
    source_key,
    transcript_key,
    waveform_key,
)
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_object import StoredAudio
from persistence.storing.waveforms import WaveformStore

_ROWS: Final = 500

_PAGE = text(f"""
    SELECT {STORED_SESSION_SQL}, {HAS_SERVER} AS has_server,
        coalesce(s.deleted_at < now() - make_interval(secs => :delete_age), false) AS is_half_deleted
    FROM realtime_sessions AS s
    WHERE s.id > :after ORDER BY s.id LIMIT :limit
""")  # noqa: S608 - no input
_SOME = text(f"""
    SELECT {STORED_SESSION_SQL} FROM realtime_sessions AS s WHERE s.id = ANY(:ids)
""").bindparams(*arrays(ids=Uuid))  # noqa: S608 - no input


class Verifier:
    """Compares rows, objects and spools. All methods raise StorageUnavailable while a store is unavailable."""

    def __init__(
        self, database: Database, objects: ObjectStore, spool_dir: Path | None, *, delete_age_seconds: float = 300.0
    ) -> None:
        self._database = database
        self._objects = objects
        self._spool_dir = spool_dir
        self._delete_age_seconds = delete_age_seconds
        self._rows = SessionRows(database, "verify")
        self._versions = VersionVerifier(database, objects)
        self._waveforms = WaveformStore(objects)
        self.checked = {"rows": 0, "objects": 0, "uploads": 0, "spools": 0}
        """How many of each were read."""

    async def findings(self) -> AsyncIterator[Finding]:
        """All findings."""
        async for page in self._pages():
            for row in page:
                self.checked["rows"] += 1
                for finding in await self._of_row(row):
                    yield finding
            async for finding in self._versions.of_sessions([row["id"] for row in page if not row["is_deleted"]]):
                yield finding
        async for finding in self._versions.of_jobs():
            yield finding
        async for finding in self._of_objects():
            yield finding
        async for finding in self._of_uploads():
            yield finding
        if self._spool_dir is not None:
            async for finding in self._of_spools(self._spool_dir):
                yield finding

    async def _pages(self) -> AsyncIterator[Sequence[RowMapping]]:
        after = UUID(int=0)
        while True:
            parameters = {"after": after, "limit": _ROWS, "delete_age": self._delete_age_seconds}
            async with self._database.transaction() as connection:
                page = (await connection.execute(_PAGE, parameters)).mappings().all()
            if not page:
                return
            yield page
            after = page[-1]["id"]

    async def _of_row(self, row: RowMapping) -> list[Finding]:
        session = stored_session(row)
        if session.is_deleted:
            if not row["is_half_deleted"] or (session.is_unfinished and row["has_server"]):
                return []
            return [Finding("delete_unfinished", session.id, "is deleted, and its row or objects are still there")]
        if session.is_unfinished:
            if row["has_server"]:
                return []
            what = "is active" if session.status == "active" else "is not stored to its end"
            return [Finding("no_server", session.id, f"{what}, and no server is at work on it")]
        findings = []
        if session.audio_uri is not None:
            findings += await self._of_audio(session)
            findings += await self._of_waveform(session)
        if session.transcript_uri is not None and session.source == "live":
            findings += await self._of_transcript(session)
        return findings

    async def _of_file(self, session: StoredSession) -> list[Finding]:
        key = source_key(session.id)
        if await self._objects.has(key, session.stored_bytes):
            return []
        return [Finding("file_missing", session.id, "its uploaded file is not there, or has another length", key)]

    async def _of_audio(self, session: StoredSession) -> list[Finding]:
        if session.source == "upload":
            return await self._of_file(session)
        key = audio_key(session.id)
        wav = session.wav
        try:
            size = await self._objects.size(key)
            stored = await StoredAudio(self._objects, session.id, wav).audio_bytes()
        except ObjectNotFound:
            return [Finding("audio_missing", session.id, "its row names audio that is not there", key)]
        except ValueError:
            return [Finding("audio_damaged", session.id, "its audio has no header of a recording", key)]
        if wav.file_bytes(stored) != size:
            what = f"its header states {stored} bytes of audio, its length {size - wav.header_bytes}"
            return [Finding("audio_damaged", session.id, what, key)]
        if abs(wav.seconds(stored) - session.audio_duration_seconds) * wav.sample_rate >= 1:
            what = f"holds {wav.seconds(stored):.3f} s of audio, its row states {session.audio_duration_seconds:.3f} s"
            return [Finding("audio_length", session.id, what, key)]
        return []

    async def _of_waveform(self, session: StoredSession) -> list[Finding]:
        """A waveform of other audio harms nobody: it is made again when it is asked for, and `repair` deletes it."""
        if session.source == "upload":
            return []
        try:
            is_stale = await self._waveforms.is_stale(session)
        except ObjectNotFound:
            return []  # the audio is missing, which is a finding of its own
        key = waveform_key(session.id)
        return [Finding("waveform_stale", session.id, "its waveform is not of its audio", key)] if is_stale else []

    async def _of_transcript(self, session: StoredSession) -> list[Finding]:
        key = transcript_key(session.id)
        try:
            stored = json.loads(await self._objects.read(key))["utterances"]
        except ObjectNotFound:
            return [Finding("transcript_missing", session.id, "its row names a transcript that is not there", key)]
        except (ValueError, KeyError, TypeError):
            return [Finding("transcript_damaged", session.id, "its transcript cannot be read", key)]
        finals = await self._rows.utterances(session.id)
        if [each.text for each in finals] != [each["text"].replace("\0", "") for each in stored]:
            what = f"its transcript has {len(stored)} utterances that are not the {len(finals)} of its rows"
            return [Finding("transcript_differs", session.id, what, key)]
        counts = len(finals), sum(each.word_count for each in finals)
        row_counts = session.utterance_count, session.word_count
        if counts != row_counts:
            what = "has {} utterances of {} words, its row states {} of {}".format(*counts, *row_counts)
            return [Finding("utterance_count", session.id, what)]
        return []

    async def _of_objects(self) -> AsyncIterator[Finding]:
        after = ""
        while keys := await self._objects.page(SESSIONS_PREFIX, after):
            after = keys[-1]
            self.checked["objects"] += len(keys)
            rows = await self._rows_of(keys)
            deleted = await self._deleted_of(keys)
            for key in keys:
                if (finding := _of_key(key, rows, deleted)) is not None and await self._is_there(key):
                    yield finding
            of_sessions = [key for key in keys if _session_of(key) in rows]
            async for finding in self._versions.of_keys(of_sessions):
                if await self._is_there(finding.path):
                    yield finding

    async def _of_uploads(self) -> AsyncIterator[Finding]:
        keys = await self._objects.uploads_below(SESSIONS_PREFIX)
        self.checked["uploads"] += len(keys)
        rows = await self._rows_of(keys)
        deleted = await self._deleted_of(keys)
        for key in keys:
            identifier = _session_of(key)
            row = rows.get(identifier)
            if row is None:
                yield _without_row(key, identifier, deleted, "an unfinished upload")
            elif not row.is_unfinished:
                yield Finding("upload_left", identifier, "an unfinished upload that nobody will complete", key)

    async def _of_spools(self, spool_dir: Path) -> AsyncIterator[Finding]:
        directories = await asyncio.to_thread(lambda: sorted(spool_dir.glob("*/sess_*")))
        self.checked["spools"] += len(directories)
        rows = await self._rows_of([f"{SESSIONS_PREFIX}{directory.name}" for directory in directories])
        for directory in directories:
            row = rows.get(_session_of(f"{SESSIONS_PREFIX}{directory.name}"))
            if row is None or not row.is_unfinished:
                finding = _of_spool(directory, row)
                if finding is not None:
                    yield finding

    async def _deleted_of(self, keys: Iterable[str]) -> frozenset[UUID]:
        ids = {identifier for key in keys if (identifier := _session_of(key)) is not None}
        async with self._database.transaction() as connection:
            return await deleted_among(connection, ids)

    async def _rows_of(self, keys: Iterable[str]) -> dict[UUID | None, StoredSession]:
        ids = {identifier for key in keys if (identifier := _session_of(key)) is not None}
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_SOME, {"ids": list(ids)})).mappings().all()
        return {row["id"]: stored_session(row) for row in rows}

    async def _is_there(self, key: str) -> bool:
        try:
            await self._objects.size(key)
        except ObjectNotFound:
            return False
        return True


def _session_of(key: str) -> UUID | None:
    try:
        return session_of_key(key)
    except InvalidSessionId:
        return None


def _without_row(key: str, identifier: UUID | None, deleted: frozenset[UUID], what: str) -> Finding:
    """What belongs to a deleted session is to be deleted; without a deletion it may be all that is left."""
    if identifier in deleted:
        return Finding("deleted_left", identifier, f"{what} of a session that was deleted", key)
    return Finding("object_without_row", identifier, f"{what} of a session that has no row and was not deleted", key)


def _of_key(key: str, rows: dict[UUID | None, StoredSession], deleted: frozenset[UUID]) -> Finding | None:
    identifier = _session_of(key)
    if identifier is None:
        return Finding("unknown_object", None, "an object that belongs to no session", key)
    row = rows.get(identifier)
    if row is None:
        return _without_row(key, identifier, deleted, "an object")
    if parse_tail_key(key) is not None and not row.is_unfinished:
        return Finding("tail_left", identifier, "a tail object of a session that is stored", key)
    if is_waveform_key(key) and not row.is_unfinished and row.audio_uri is None:
        return Finding("waveform_stale", identifier, "a waveform of a session without audio", key)
    return None


def _of_spool(directory: Path, row: StoredSession | None) -> Finding | None:
    """Checks the spool of a session that is stored or has no row. Waits for the disk."""
    try:
        identifier = parse_session_id(directory.name)
        spool = SessionSpool.open(directory, SpoolBudget(1 << 62))
    except (ValueError, InvalidSessionId):
        return Finding("spool_damaged", None, "a session in the spool that cannot be read", str(directory))
    except OSError:
        return None  # deleted meanwhile
    if spool is None:
        return None
    if row is None:
        return Finding("spool_without_row", identifier, "a session in the spool that has no row", str(directory))
    if spool.audio_bytes() > row.stored_bytes:
        return Finding("spool_has_more", identifier, "the spool has audio that is not stored", str(directory))
    if len(spool.utterances()) > row.utterance_count or row.recover_after is not None:
        return Finding("spool_has_more", identifier, "the spool has finals that are not stored", str(directory))
    return Finding("spool_left", identifier, "a stored session is still in the spool", str(directory))
