"""A scenario in which a process is killed at any step of its input and output, and the next starts on what is left.

Postgres and S3 are models that keep what a real one would have kept: a step dies before its effect, or after it and
before its answer. Files are real. Time is virtual, so that a schedule is the same each time and takes milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from unittest import mock
from uuid import UUID

from domain.errors import StorageUnavailable
from domain.session import EndReason
from domain.transcript import Utterance
from persistence import backoff
from persistence.errors import NotOwner, ObjectNotFound, RowLost, UploadNotFound
from persistence.postgres import lost_rows
from persistence.postgres.lost_rows import RowState
from persistence.postgres.rows import Upload
from persistence.recording import session_recorder
from persistence.s3 import assembly, layout
from persistence.s3.objects import Body
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects, StoredPart, StoredSession
from persistence.spool import session_spool
from persistence.storing import (
    audio_object,
    audio_upload,
    degradations,
    finisher,
    part_batcher,
    restoration,
    row_comparison,
    spool_reconciliation,
    transcript_writer,
    writer,
)

T = TypeVar("T")

PART_BYTES = 1000
_LONGEST_SECONDS = 100.0
"""Of virtual time for a process: one that is not done by then never will be."""


class Crash(BaseException):
    """The process is gone. No handler of exceptions may catch this as an error."""


class Fate:
    """Counts the steps of a process, and ends it at one of them: every step after that raises `Crash`."""

    def __init__(
        self, crash_at: int | None, failing: frozenset[int], outsider: Callable[[int], None] = lambda _: None
    ) -> None:
        self.steps = 0
        self.is_dead = False
        self.died = asyncio.Event()
        self._crash_at = crash_at
        self._failing = failing
        # Another party, which may act before any step.
        self._outsider = outsider

    def step(self) -> None:
        """Counts one more step."""
        if self.is_dead:
            raise Crash
        self.steps += 1
        self._outsider(self.steps)
        if self.steps == self._crash_at:
            self.is_dead = True
            self.died.set()
            raise Crash

    async def call(self, effect: Callable[[], T]) -> T:
        """A call to a server: two steps with the effect in between, either of which may fail instead."""
        self._step_or_fail()
        await asyncio.sleep(0.01)
        if self.is_dead:
            raise Crash
        result = effect()
        self._step_or_fail()
        return result

    def _step_or_fail(self) -> None:
        self.step()
        if self.steps in self._failing:
            raise StorageUnavailable("the model refuses")


@dataclass
class Bucket:
    """What S3 stores."""

    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, tuple[str, bytes]]]] = field(default_factory=dict)
    made: int = 0


@dataclass
class Row:
    """The row of a session, its parts and its finals in Postgres."""

    start: SessionStart
    worker_id: str
    status: str = "active"
    stored: StoredObjects | None = None
    upload_id: str | None = None
    parts: dict[int, StoredPart] = field(default_factory=dict)
    has_tails: bool = False
    stored_bytes: int = 0
    audio_seconds: float = 0.0
    finals: dict[int, Utterance] = field(default_factory=dict)
    counted: int = 0
    is_reclaimed: bool = False

    @property
    def is_unfinished(self) -> bool:
        return self.status == "active" or self.stored is None or self.has_tails


class Objects:
    """ObjectStore of one process."""

    def __init__(self, bucket: Bucket, fate: Fate) -> None:
        self._bucket = bucket
        self._fate = fate

    def uri(self, key: str) -> str:
        return f"s3://bucket/{key}"

    async def put(self, key: str, body: Body, content_type: str) -> None:
        await self._fate.call(lambda: self._bucket.objects.__setitem__(key, _read(body)))

    async def create_upload(self, key: str, content_type: str) -> str:
        return await self._fate.call(lambda: self._begin(key))

    async def upload_part(self, key: str, upload_id: str, number: int, part: Body) -> str:
        def put() -> str:
            data = _read(part)
            etag = f"{number}-{hash(data):x}"
            self._parts(upload_id)[number] = (etag, data)
            return etag

        return await self._fate.call(put)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        try:
            await self._fate.call(lambda: self._complete(key, upload_id, parts))
        except StorageUnavailable:
            if not await self.has(key, sum(part.size for part in parts)):
                raise

    async def uploads(self, key: str) -> list[str]:
        return await self._fate.call(lambda: [name for name, (of, _) in self._bucket.uploads.items() if of == key])

    async def parts(self, key: str, upload_id: str) -> list[StoredPart]:
        def read() -> list[StoredPart]:
            held = self._parts(upload_id)
            return [StoredPart(upload_id, number, etag, len(data)) for number, (etag, data) in sorted(held.items())]

        return await self._fate.call(read)

    async def abort_uploads(self, key: str) -> None:
        for upload_id in await self.uploads(key):
            await self._fate.call(lambda name=upload_id: self._bucket.uploads.pop(name, None))  # type: ignore[misc]

    async def has(self, key: str, size: int) -> bool:
        return await self._fate.call(lambda: len(self._bucket.objects.get(key, b"")) == size)

    async def list(self, prefix: str) -> list[str]:
        return await self._fate.call(lambda: sorted(key for key in self._bucket.objects if key.startswith(prefix)))

    async def read(self, key: str) -> bytes:
        return await self._fate.call(lambda: self._get(key))

    async def put_parts(self, key: str, parts: AsyncIterator[bytes], content_type: str) -> None:
        await self.abort_uploads(key)
        upload_id = await self.create_upload(key, content_type)
        done: list[StoredPart] = []
        async for part in parts:
            etag = await self.upload_part(key, upload_id, len(done) + 1, part)
            done.append(StoredPart(upload_id, len(done) + 1, etag, len(part)))
        await self.complete_upload(key, upload_id, done)

    async def read_start(self, key: str, size: int) -> bytes:
        return await self._fate.call(lambda: self._get(key)[:size])

    async def read_range(self, key: str, begin: int, end: int) -> bytes:
        data = await self._fate.call(lambda: self._get(key)[begin:end])
        assert len(data) == end - begin
        return data

    async def delete(self, key: str) -> None:
        await self.abort_uploads(key)
        await self.delete_all([key])

    async def delete_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            await self._fate.call(lambda name=key: self._bucket.objects.pop(name, None))  # type: ignore[misc]

    def _begin(self, key: str) -> str:
        self._bucket.made += 1
        upload_id = f"upload-{self._bucket.made}"
        self._bucket.uploads[upload_id] = (key, {})
        return upload_id

    def _parts(self, upload_id: str) -> dict[int, tuple[str, bytes]]:
        if upload_id not in self._bucket.uploads:
            raise UploadNotFound("the model has no such upload")
        return self._bucket.uploads[upload_id][1]

    def _complete(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> None:
        held = self._parts(upload_id)
        assert [part.number for part in parts] == list(range(1, len(parts) + 1)), "parts are in order, without a gap"
        assert all(held[part.number][0] == part.etag for part in parts), "ETags are those of the latest"
        bodies = [held[part.number][1] for part in parts]
        assert all(len(body) == PART_BYTES for body in bodies[:-1]), "only the last part may be small"
        assert len(bodies[-1]) <= PART_BYTES
        self._bucket.objects[key] = b"".join(bodies)
        del self._bucket.uploads[upload_id]

    def _get(self, key: str) -> bytes:
        if key not in self._bucket.objects:
            raise ObjectNotFound("the model has no such object")
        return self._bucket.objects[key]


def _read(body: Body) -> bytes:
    """The bytes that S3 receives, read as ObjectStore reads them."""
    if isinstance(body, bytes):
        return body
    try:
        with body.open() as file:
            return file.read()
    except OSError as error:
        raise StorageUnavailable("the part cannot be read") from error


class Rows:
    """SessionRows of one process."""

    def __init__(self, table: dict[UUID, Row], worker_id: str, fate: Fate) -> None:
        self._table = table
        self._fate = fate
        self.worker_id = worker_id

    def _own(self, session_id: UUID) -> Row | None:
        row = self._table.get(session_id)
        if row is not None and row.worker_id != self.worker_id:
            raise NotOwner
        return row

    def _own_row(self, session_id: UUID) -> Row:
        # No session is deleted in this scenario.
        if (row := self._own(session_id)) is None:
            raise RowLost
        return row

    async def restore(self, starts: Sequence[SessionStart]) -> frozenset[UUID]:
        def restore() -> frozenset[UUID]:
            missing = [start for start in starts if start.id not in self._table]
            self._table.update({start.id: Row(start, self.worker_id) for start in missing})
            return frozenset(start.id for start in missing)

        return await self._fate.call(restore)

    async def row_states(self, session_ids: Sequence[UUID]) -> list[RowState]:
        def look(session_id: UUID) -> RowState:
            row = self._table.get(session_id)
            if row is None:
                return RowState(session_id, True, False, False, False, 0)
            is_unstored = row.status == "active" or row.stored is None
            is_own = row.worker_id == self.worker_id
            return RowState(session_id, False, is_own, is_unstored, row.has_tails, len(row.finals))

        return await self._fate.call(lambda: [look(each) for each in session_ids])

    async def fate(self, session_id: UUID) -> lost_rows.Fate:
        lives, lost = lost_rows.Fate.EXISTS, lost_rows.Fate.LOST
        return await self._fate.call(lambda: lives if session_id in self._table else lost)

    async def exists(self, session_id: UUID) -> bool:
        return await self._fate.call(lambda: bool(self._own_row(session_id)))

    async def insert(self, starts: Sequence[SessionStart]) -> None:
        def insert() -> None:
            for start in starts:
                self._table.setdefault(start.id, Row(start, start.worker_id))

        await self._fate.call(insert)

    async def write(self, progress: Mapping[UUID, Progress], utterances: Sequence[Any] = ()) -> dict[UUID, float]:
        def update() -> dict[UUID, float]:
            ids = {*progress, *(each.session_id for each in utterances)}
            own = {each: row for each in ids if (row := self._table.get(each)) and row.worker_id == self.worker_id}
            before = {session_id: row.audio_seconds for session_id, row in own.items()}
            for session_id, each in progress.items():
                if (row := self._own(session_id)) is not None:
                    row.stored_bytes = max(row.stored_bytes, each.stored_bytes)
                    row.audio_seconds = max(row.audio_seconds, each.audio_seconds)
            for new in utterances:
                row = self._table.get(new.session_id)
                if row is not None and row.worker_id == self.worker_id:
                    row.finals.setdefault(new.index, new.utterance)
            return before

        return await self._fate.call(update)

    async def utterances(self, session_id: UUID) -> list[Utterance]:
        return list((await self.indexed_utterances(session_id)).values())

    async def indexed_utterances(self, session_id: UUID) -> dict[int, Utterance]:
        def read() -> dict[int, Utterance]:
            row = self._table.get(session_id)
            return dict(sorted(row.finals.items())) if row is not None else {}

        return await self._fate.call(read)

    async def audio_seconds(self, session_id: UUID) -> float:
        return await self._fate.call(lambda: self._table[session_id].audio_seconds)

    async def has_utterances(self, session_id: UUID, count: int) -> bool:
        return await self._fate.call(lambda: set(range(count)) <= set(self._table[session_id].finals))

    async def add_parts(self, parts: Sequence[tuple[UUID, StoredPart]]) -> frozenset[UUID]:
        def add() -> frozenset[UUID]:
            noted = [(session_id, part) for session_id, part in parts if session_id in self._table]
            for session_id, part in noted:
                row = self._table[session_id]
                row.upload_id = part.upload_id
                row.parts[part.number] = part
            return frozenset(session_id for session_id, _ in noted)

        return await self._fate.call(add)

    async def upload(self, session_id: UUID) -> Upload:
        def read() -> Upload:
            row = self._table.get(session_id)
            if row is None:
                return Upload(None, ())
            is_stored = row.stored is not None and row.stored.audio_uri is not None
            return Upload(row.upload_id, tuple(row.parts[number] for number in sorted(row.parts)), is_stored)

        return await self._fate.call(read)

    async def delete_upload(self, session_id: UUID) -> None:
        def forget() -> None:
            row = self._own_row(session_id)
            row.upload_id, row.parts = None, {}

        await self._fate.call(forget)

    async def conclude(self, session_id: UUID, conclusion: Conclusion) -> bool:
        def conclude() -> bool:
            row = self._own_row(session_id)
            row.status = conclusion.end_reason.status
            row.audio_seconds = max(row.audio_seconds, conclusion.progress.audio_seconds)
            row.counted = max(row.counted, conclusion.progress.utterances)
            return True

        return await self._fate.call(conclude)

    async def set_stored(self, session_id: UUID, stored: StoredObjects, **values: Any) -> bool:
        def store() -> bool:
            row = self._own_row(session_id)
            row.stored, row.has_tails, row.is_reclaimed = stored, values.get("has_tails", False), False
            row.counted = max(row.counted, values.get("progress", Progress()).utterances)
            if (finals := values.get("utterances")) is not None:
                row.counted = len(finals)
            row.audio_seconds, row.stored_bytes = values["audio_seconds"], values["stored_bytes"]
            row.upload_id, row.parts = None, {}
            return True

        return await self._fate.call(store)

    async def mark_tails_deleted(self, session_id: UUID) -> None:
        await self._fate.call(lambda: setattr(self._own_row(session_id), "has_tails", False))

    async def end_refused(self, *_: Any) -> int:
        return 0


class Ownership:
    """Ownership of one process: takes over the sessions of its predecessor."""

    def __init__(self, table: dict[UUID, Row], worker_id: str, fate: Fate) -> None:
        self._table = table
        self._worker_id = worker_id
        self._fate = fate

    async def adopt(
        self, homes: Sequence[str], spooled: Sequence[UUID], end_reason: EndReason, _: Any
    ) -> frozenset[UUID]:
        def adopt() -> frozenset[UUID]:
            taken = [row for row in self._table.values() if row.is_unfinished]
            for row in taken:
                row.worker_id = self._worker_id
                row.status = end_reason.status if row.status == "active" else row.status
            return frozenset(row.start.id for row in taken)

        return await self._fate.call(adopt)

    def is_recovering(self, _: UUID) -> bool:
        return False

    async def read(self, session_id: UUID) -> StoredSession | None:
        def read() -> StoredSession | None:
            row = self._table.get(session_id)
            return None if row is None else stored_session_of(row)

        return await self._fate.call(read)

    async def reclaim(self, session_id: UUID, owner: str) -> bool:
        def reclaim() -> bool:
            row = self._table.get(session_id)
            if row is None or row.worker_id != owner or row.is_unfinished:
                return False
            row.worker_id, row.is_reclaimed = self._worker_id, True
            return True

        return await self._fate.call(reclaim)


def stored_session_of(row: Row) -> StoredSession:
    """The `StoredSession` of a row."""
    start, stored = row.start, row.stored or StoredObjects()
    values: dict[str, Any] = {name: getattr(start, name) for name in StoredSession.__slots__ if hasattr(start, name)}
    return StoredSession(
        **values
        | {
            "worker_id": row.worker_id,
            "status": row.status,
            "audio_uri": stored.audio_uri,
            "transcript_uri": stored.transcript_uri,
            "audio_duration_seconds": row.audio_seconds,
            "utterance_count": row.counted,
            "word_count": 0,
            "processed_seconds": 0.0,
            "has_tails": row.has_tails,
            "stored_bytes": row.stored_bytes,
            "recover_after": datetime.now(UTC) if row.is_reclaimed else None,
            "is_deleted": False,
        }
    )


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time advances only when no task is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            assert self._scheduled, "deadlock: no task is ready or scheduled"  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
            assert self._now < _LONGEST_SECONDS, "a repeated attempt never succeeds"
        super()._run_once()  # type: ignore[misc]


class _MortalOs:
    """`os` for the spool: its writes tear, its syncs take no time, and each is a step."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: Any) -> int:
        torn = len(data) // 2
        try:
            self._fate.step()
        except Crash:
            if torn:
                os.write(descriptor, data[:torn])
            raise
        return os.write(descriptor, data)

    def open(self, *arguments: Any) -> int:
        self._fate.step()
        return os.open(*arguments)

    def fsync(self, _descriptor: int) -> None:
        self._fate.step()


def _no_log(*_: Any, **__: Any) -> None:
    """In place of a logger's method. A function: thousands of mocks would take a third of the time."""


@contextmanager
def mortal(fate: Fate) -> Iterator[None]:
    """Runs the code of persistence under this fate, with small parts and in virtual time."""

    async def in_this_thread(function: Callable[..., T], *arguments: Any) -> T:
        fate.step()
        await asyncio.sleep(0.001)
        if fate.is_dead:
            raise Crash
        return function(*arguments)

    def stepping(name: str) -> Any:
        real = getattr(pathlib.Path, name)

        def act(path: pathlib.Path, *arguments: Any, **options: Any) -> Any:
            fate.step()
            return real(path, *arguments, **options)

        return mock.patch.object(pathlib.Path, name, act)

    clock = types.SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    patches = [
        *[mock.patch.object(module, "PART_BYTES", PART_BYTES) for module in (layout, assembly)],
        mock.patch.object(asyncio, "to_thread", in_this_thread),
        mock.patch.object(session_spool, "os", _MortalOs(fate)),
        mock.patch.object(backoff, "FIRST_SECONDS", 0.05),
        mock.patch.object(finisher, "_FIRST_PAUSE_SECONDS", 0.05),
        mock.patch.object(part_batcher, "COLLECT_SECONDS", 0.02),
        *[stepping(name) for name in ("unlink", "replace", "rmdir", "mkdir")],
        *[
            mock.patch.object(module, "time", clock)
            for module in (audio_upload, row_comparison, session_recorder, restoration, degradations, writer)
        ],
        *[mock.patch.object(each.log, "error", _no_log) for each in (audio_upload, finisher, spool_reconciliation)],
        *[mock.patch.object(each.log, "warning", _no_log) for each in (audio_upload, finisher)],
        mock.patch.object(spool_reconciliation.log, "info", _no_log),
        *[mock.patch.object(each, "note_restored", _no_log) for each in (audio_object, transcript_writer)],
        *[mock.patch.object(restoration.log, name, _no_log) for name in ("error", "warning")],
        *[mock.patch.object(row_comparison.log, name, _no_log) for name in ("error", "info")],
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
