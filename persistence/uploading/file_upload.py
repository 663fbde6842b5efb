"""The upload of one file: its bytes go to S3 while they arrive, its session and job to Postgres when it is complete.

Nothing is acknowledged before both have it. An upload that fails, or whose server ends, leaves nothing: its session is
deleted, here or by the reaper of another server.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge

from domain.errors import FileTooBig, StorageUnavailable
from domain.job import JobRequest
from domain.session_id import format_session_id
from domain.tenancy import Caller
from persistence.errors import LeaseLost
from persistence.postgres.rows import SessionRows
from persistence.postgres.uploads import UploadedFile, UploadRows
from persistence.s3.keys import source_key
from persistence.s3.objects import PART_BYTES, ObjectStore
from persistence.session_values import StoredPart
from persistence.storing.deletion import delete_objects
from telemetry.logs import get_logger

log = get_logger(__name__)

_SHORT_LIVED_SECONDS: Final = 86_400.0
"""How long a file is stored that its client does not want to be kept."""

_running = Gauge("dalston_uploads_running", "Files that are being uploaded")
_ended = Counter("dalston_uploads_total", "Uploads that have ended", ["outcome"])


class FileUploads:
    """Begins uploads. All methods raise StorageUnavailable while Postgres or S3 is unavailable."""

    def __init__(self, objects: ObjectStore, uploads: UploadRows, rows: SessionRows) -> None:
        self._objects = objects
        self._uploads = uploads
        self._rows = rows

    @asynccontextmanager
    async def begin(self, caller: Caller, most_bytes: int, client_ip: str | None) -> AsyncIterator["FileUpload"]:
        """An upload for the block. What is not complete at the end of the block is deleted.

        Raises:
            StorageQuotaExceeded: the tenant has used up its storage.
        """
        session_id = await self._uploads.begin(caller, client_ip)
        upload = FileUpload(self._objects, self._uploads, caller, session_id, most_bytes)
        with _running.track_inprogress():
            try:
                yield upload
            finally:
                _ended.labels("completed" if upload.job_id is not None else "failed").inc()
                if not upload.is_kept:
                    await self._discard(session_id)

    async def _discard(self, session_id: UUID) -> None:
        try:
            await self._rows.soft_delete(session_id)
            await delete_objects(self._objects, session_id)
            await self._rows.delete_row(session_id)
        except (StorageUnavailable, LeaseLost):
            log.warning("an upload is deleted in the background", session_id=format_session_id(session_id))


class FileUpload:
    """One file. `write` its bytes in order, then `complete` it."""

    def __init__(
        self, objects: ObjectStore, uploads: UploadRows, caller: Caller, session_id: UUID, most_bytes: int
    ) -> None:
        self.session_id = session_id
        self.job_id: UUID | None = None
        """The job, once the file is complete."""
        self.is_kept = False
        """Whether the session stays."""
        self._objects = objects
        self._uploads = uploads
        self._caller = caller
        self._most_bytes = most_bytes
        self._key = source_key(session_id)
        self._size = 0
        self._digest = hashlib.sha256()
        self._pending = bytearray()
        self._upload_id: str | None = None
        self._parts: list[StoredPart] = []

    async def write(self, data: bytes) -> None:
        """Takes the next bytes; waits while a part is written to S3.

        Raises:
            FileTooBig: the file is over the limit.
        """
        self._size += len(data)
        if self._size > self._most_bytes:
            raise FileTooBig(self._most_bytes)
        self._digest.update(data)
        self._pending += data
        while len(self._pending) >= PART_BYTES:
            await self._write_part(bytes(self._pending[:PART_BYTES]))
            del self._pending[:PART_BYTES]

    async def complete(
        self, media_type: str, file_name: str | None, request: JobRequest, *, is_kept: bool, max_queued: int
    ) -> UUID:
        """Stores the rest of the file, and creates its job; returns the job's id.

        The same file with the same configuration gets the job that it has already, if that has not ended or has
        completed within ten minutes. This session is deleted then.

        Raises:
            TooManyJobs: the tenant has `max_queued` queued jobs.
        """
        if self._upload_id is None:
            await self._objects.put(self._key, bytes(self._pending), media_type)
        else:
            if self._pending:
                await self._write_part(bytes(self._pending))
            await self._objects.complete_upload(self._key, self._upload_id, self._parts)
        file = UploadedFile(
            self.session_id,
            self._objects.uri(self._key),
            self._size,
            media_type,
            file_name,
            _fingerprint(self._digest.digest(), request, is_kept=is_kept),
            None if is_kept else _SHORT_LIVED_SECONDS,
        )
        self.job_id, self.is_kept = await self._uploads.complete(self._caller, file, request, max_queued)
        return self.job_id

    async def _write_part(self, part: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = await self._objects.create_upload(self._key, "application/octet-stream")
        number = len(self._parts) + 1
        etag = await self._objects.upload_part(self._key, self._upload_id, number, part)
        self._parts.append(StoredPart(self._upload_id, number, etag, len(part)))


def _fingerprint(file: bytes, request: JobRequest, *, is_kept: bool) -> bytes:
    configuration = [request.model, request.language, list(request.vocabulary), is_kept]
    return hashlib.sha256(file + json.dumps(configuration).encode()).digest()
