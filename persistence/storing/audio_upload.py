"""Ships the audio of one session from the spool to S3, while the session runs and when it has ended.

While it runs, every full segment but the first becomes a part of a multipart upload, and audio that is in no part yet
is put every flush interval as a tail object. A segment and the tails it covers are deleted only when Postgres has the
part's ETag. When the session has ended, the rest follows: the last part, part 1 with the header, and the completion of
the upload.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from prometheus_client import Counter, Histogram

from domain.errors import StorageUnavailable
from persistence.backoff import Backoff
from persistence.errors import LeaseLost, NotOwner, ObjectNotFound, ObjectStoreUnavailable, UploadNotFound
from persistence.postgres.rows import SessionRows
from persistence.s3 import layout
from persistence.s3.assembly import assemble
from persistence.s3.keys import Tail, audio_key, tail_key
from persistence.s3.objects import Body, ObjectStore
from persistence.session_values import StoredPart
from persistence.spool.session_spool import SessionSpool
from persistence.storing.audio_object import (
    AudioBuilder,
    StoredAudio,
    Transfer,
    is_full_part,
    read_tails,
    read_upload,
)
from persistence.storing.degradations import LOST, OBJECT_STORE, PARTS, Degradations
from persistence.storing.part_batcher import PartBatcher
from telemetry.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_RAW: Final = "application/octet-stream"

_STORED: Final = (
    "Audio that this process has made safe in S3 for the first time. Not counted: audio that an earlier process had"
    " put there, and audio that is added to stored sessions (dalston_extended_audio_bytes_total)"
)
_stored_bytes = Counter("dalston_stored_audio_bytes_total", _STORED)
_stored_seconds = Counter("dalston_stored_audio_seconds_total", _STORED)
_lost_seconds = Counter("dalston_lost_audio_seconds_total", "Audio that was recorded and is replaced by silence")
_uploads_lost = Counter("dalston_uploads_lost_total", "Unfinished uploads of this process that another has aborted")
_put_seconds = Histogram("dalston_audio_put_seconds", "Transfers from the spool to S3, one object or part", ["kind"])


@dataclass(frozen=True, slots=True)
class UploadDependencies:
    """What all uploads of a process share."""

    objects: ObjectStore
    rows: SessionRows
    part_batcher: PartBatcher
    slots: asyncio.Semaphore
    """Bounds the parts and tails that are in transfer."""
    flush_seconds: float
    check: Callable[[], None]
    """Raises LeaseLost when this process may not write."""


class _BoundedTransfer(Transfer):
    """Bounds the transfers of a process, times them, and notes when S3 does not take those of a session."""

    def __init__(self, shared: UploadDependencies, degradations: Degradations) -> None:
        self._shared = shared
        self._degradations = degradations

    async def send(self, kind: str, read: Callable[[], Awaitable[Body]], put: Callable[[Body], Awaitable[T]]) -> T:
        with self._degradations.watch(OBJECT_STORE):
            async with self._shared.slots:
                body = await read()
                self._shared.check()
                with _put_seconds.labels(kind).time():
                    return await put(body)

    async def complete(self, complete: Callable[[], Awaitable[None]]) -> None:
        self._shared.check()
        with self._degradations.watch(OBJECT_STORE):
            await complete()


class AudioUpload:
    """One owner task at a time: `run` while the session runs, then `finish` and `clean`."""

    def __init__(
        self, spool: SessionSpool, shared: UploadDependencies, degradations: Degradations, *, is_recovered: bool = False
    ) -> None:
        self._spool = spool
        self._shared = shared
        self._degradations = degradations
        self._id = spool.manifest.start.id
        self._key = audio_key(self._id)
        self._stored = StoredAudio(shared.objects, self._id, spool.wav)
        self._transfer = _BoundedTransfer(shared, degradations)
        self._builder = AudioBuilder(shared.objects, self._id, spool.wav, self._record, self._transfer)
        self._is_known = not is_recovered
        self._is_stored = False
        self._covered_segments: set[int] = set()
        self._lost_parts: set[int] = set()
        self._tails: list[Tail] = []
        self._safe_bytes = 0
        # Audio in an object that an earlier process has put: no shorter object may replace it.
        self._object_total = 0
        self._flush_at = time.monotonic() + shared.flush_seconds
        self._woken = asyncio.Event()
        self._is_ending = False
        self._are_parts_doubtful = False

    @property
    def stored_bytes(self) -> int:
        """Audio that survives the loss of this machine, from the first byte on without a gap."""
        return self._safe_bytes

    @property
    def has_tails(self) -> bool:
        """Whether there are tail objects, as far as this process knows."""
        return bool(self._tails)

    def appended(self) -> None:
        """Notes that audio was appended to the spool: a segment may be full."""
        if self._has_full_segment():
            self._woken.set()

    def flush_soon(self) -> None:
        """Puts the audio that is in no part yet at once, and not at the next interval."""
        self._flush_at = time.monotonic()
        self._woken.set()

    def rewrite_parts(self) -> None:
        """Writes the recorded parts to Postgres again, which may have lost them."""
        self._are_parts_doubtful = bool(self._builder.parts)
        if self._are_parts_doubtful:
            self._woken.set()

    def end(self) -> None:
        """Has `run` return after the step that is in progress."""
        self._is_ending = True
        self._woken.set()

    async def run(self) -> None:
        """Ships until `end`, or until another process owns the session."""
        backoff = Backoff()
        while not self._is_ending:
            try:
                await self._advance_or_restart()
            except (NotOwner, LeaseLost):
                log.warning("shipping stops: another process owns the session", session_id=self._session_id)
                return
            except (StorageUnavailable, OSError) as error:
                log.warning("shipping waits", session_id=self._session_id, reason=str(error))
                await self._pause(backoff.next())
            else:
                backoff.reset()
                if not self._has_full_segment():
                    await self._pause(self._flush_at - time.monotonic())

    async def finish(self) -> tuple[str, int]:
        """Builds the object of an ended session; returns its URI and the bytes of audio in it. May be repeated.

        Raises:
            StorageUnavailable: S3, Postgres or the disk is unavailable; call again.
            NotOwner, LeaseLost: another process owns the session.
        """
        await self._read_state()
        total = self._total_bytes()
        if not self._is_stored:
            try:
                await self._builder.build(total, self)
            except UploadNotFound:
                if not await self._shared.objects.has(self._key, self._spool.wav.file_bytes(total)):
                    await self._restart_upload()
                    raise
            self._is_stored = True
            self._advance_to(total)
        return self._shared.objects.uri(self._key), total

    async def clean(self) -> None:
        """Deletes what the object has made superfluous, once its URI is in the row. May be repeated.

        Raises:
            StorageUnavailable: S3 is unavailable; call again.
        """
        self._shared.check()
        await self._shared.objects.delete_all([tail_key(self._id, tail) for tail in self._tails])
        self._tails = []
        if layout.part_count(self._spool.wav, self._total_bytes()) > 1 or self._builder.upload_id is not None:
            # The answer to the creation of an upload may have been lost: no process knows that upload's id.
            await self._shared.objects.abort_uploads(self._key)

    async def read(self, begin: int, end: int) -> Body:
        """The audio from byte `begin` to byte `end`: from the spool, else from S3, and silence for what is lost."""
        spooled = await asyncio.to_thread(self._spool.spooled_part, begin, end)
        return await self._patched_audio(begin, end) if spooled is None else spooled

    @property
    def _session_id(self) -> str:
        return self._spool.manifest.start.session_id

    def _has_full_segment(self) -> bool:
        return layout.end_byte(self._spool.wav, self._next_part) <= self._spool.written_bytes

    @property
    def _next_part(self) -> int:
        """The first part after part 1 that is not in Postgres. They are shipped in their order."""
        parts = self._builder.parts
        return max(2, len(parts) + (1 if 1 in parts else 2))

    async def _pause(self, seconds: float) -> None:
        if self._is_ending:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _advance_or_restart(self) -> None:
        try:
            await self._advance()
        except UploadNotFound:
            # Not only at the session's end: until then all audio after part 1 would be on this machine alone.
            await self._restart_upload()
            raise

    async def _rewrite_parts(self) -> None:
        parts = [(self._id, part) for part in self._builder.parts.values()]
        if self._id in await self._shared.rows.add_parts(parts):
            self._are_parts_doubtful = False
        elif not await self._shared.rows.exists(self._id):
            raise NotOwner

    async def _advance(self) -> None:
        wav, written = self._spool.wav, self._spool.written_bytes
        first_end = layout.end_byte(wav, 1)
        if self._safe_bytes < first_end <= written:
            # Part 1 comes last, so its audio is safe in tails only; parts follow when there is no gap before them.
            await self._flush(first_end)
        failure = await self._ship_segments()
        # Also while Postgres is unavailable, which parts need and tails do not.
        if time.monotonic() >= self._flush_at and not self._is_ending:
            await self._flush(self._spool.written_bytes)
            self._flush_at = time.monotonic() + self._shared.flush_seconds
        if failure is not None:
            raise failure

    async def _ship_segments(self) -> StorageUnavailable | OSError | None:
        try:
            if self._are_parts_doubtful:
                await self._rewrite_parts()
            while not self._is_ending and self._has_full_segment():
                await self._ship_segment(self._next_part)
            await self._release()
        except (StorageUnavailable, OSError) as error:
            return error
        return None

    async def _ship_segment(self, number: int) -> None:
        begin, end = self._first_byte(number), layout.end_byte(self._spool.wav, number)
        await self._builder.add_part(number, partial(self.read, begin, end))
        self._advance_to(end)
        self._covered_segments.add(number)
        await self._delete_covered_tails(begin, end)

    async def _record(self, part: StoredPart) -> None:
        with self._degradations.watch(PARTS):
            await self._shared.part_batcher.add(self._id, part)

    async def _release(self) -> None:
        for number in [each for each in self._covered_segments if self._spool.may_delete_segment(each)]:
            await asyncio.to_thread(self._spool.delete_segment, number)
            self._covered_segments.discard(number)

    async def _delete_covered_tails(self, begin: int, end: int) -> None:
        covered = [tail for tail in self._tails if tail.end <= end and tail.first_byte >= begin]
        await self._shared.objects.delete_all([tail_key(self._id, tail) for tail in covered])
        self._tails = [tail for tail in self._tails if tail not in covered]

    async def _flush(self, end: int) -> None:
        for begin, cut in layout.split(self._spool.wav, self._safe_bytes, end):
            await self._put_tail(Tail(begin, cut - begin))

    async def _put_tail(self, tail: Tail) -> None:
        async def read() -> Body:
            audio = await asyncio.to_thread(self._spool.read_audio, tail.first_byte, tail.size)
            # Noted before it is in S3: the answer may be lost.
            self._tails.append(tail)
            return audio

        async def put(body: Body) -> None:
            await self._shared.objects.put(tail_key(self._id, tail), body, _RAW)

        await self._transfer.send("tail", read, put)
        self._advance_to(tail.end)

    async def _patched_audio(self, begin: int, end: int) -> bytes:
        wav = self._spool.wav
        patched = bytearray(wav.silence * (end - begin))
        missing = bytearray(b"\1" * (end - begin))

        def patch(position: int, audio: bytes) -> None:
            first, last = max(begin, position), min(end, position + len(audio))
            if first < last:
                patched[first - begin : last - begin] = audio[first - position : last - position]
                missing[first - begin : last - begin] = bytes(last - first)

        if (stored := min(end, await self._object_bytes())) > begin:
            # An object that another process has put without noting it in the row.
            patch(begin, await self._stored.read(begin, stored))
        for tail in self._tails:
            if tail.first_byte < end and tail.end > begin:
                # A tail whose answer was lost need not be in S3.
                with suppress(ObjectNotFound):
                    patch(tail.first_byte, await self._shared.objects.read(tail_key(self._id, tail)))
        patch(*await asyncio.to_thread(self._spool.segment_with, begin))
        if lost := sum(missing):
            self._report_lost(layout.part_of(wav, begin), wav.seconds(lost))
        return bytes(patched)

    def _report_lost(self, number: int, seconds: float) -> None:
        if number not in self._lost_parts:  # Once, however many attempts there are to store it.
            self._lost_parts.add(number)
            self._degradations.begin(LOST)
            _lost_seconds.inc(seconds)
            log.error("audio is lost and replaced by silence", session_id=self._session_id, seconds=seconds)

    async def _object_bytes(self) -> int:
        """How much audio the object holds; 0 if there is no recording."""
        try:
            return await self._stored.audio_bytes()
        except (ObjectNotFound, ValueError):
            return 0

    async def _read_state(self) -> None:
        """Reads what an earlier process has stored of the session, from its row and from S3."""
        if self._is_known:
            return
        upload = await read_upload(self._shared.objects, self._shared.rows, self._id)
        self._tails = await read_tails(self._shared.objects, self._id)
        self._is_stored = upload.is_stored
        in_pieces = assemble(self._spool.wav, upload.parts, self._tails).audio_bytes
        self._object_total = await self._object_bytes()
        self._safe_bytes = max(in_pieces, self._object_total)
        # Part 1 states the length and the last part ends with it: the process that built them may have known less.
        self._builder.reset(upload.upload_id, [part for part in upload.parts if is_full_part(part)])
        self._is_known = True

    def _total_bytes(self) -> int:
        """How much audio there is. After a power cut S3 may have more of it than the disk."""
        wav = self._spool.wav
        full = [part.number for part in self._builder.parts.values() if is_full_part(part)]
        in_parts = max((layout.end_byte(wav, number) for number in full), default=0)
        in_tails = max((tail.end for tail in self._tails), default=0)
        total = max(self._spool.written_bytes, in_parts, in_tails, self._object_total)
        return total - total % wav.frame_bytes

    async def _restart_upload(self) -> None:
        """Forgets an upload that has been aborted; the next attempt uploads what there is.

        Raises:
            StorageUnavailable: S3 lists the upload that it has just not found.
        """
        if self._builder.upload_id in await self._shared.objects.uploads(self._key):
            raise ObjectStoreUnavailable("the store does not find an upload that it lists")
        # Segments that are still in the spool stay until they are in a part again.
        self._covered_segments.clear()
        await self._shared.rows.delete_upload(self._id)
        _uploads_lost.inc()
        log.error("an unfinished upload is gone", session_id=self._session_id, parts=len(self._builder.parts))
        self._builder.reset()

    def _first_byte(self, number: int) -> int:
        return layout.first_byte(self._spool.wav, number)

    def _advance_to(self, position: int) -> None:
        gained = position - self._safe_bytes
        if gained > 0:
            self._safe_bytes = position
            _stored_bytes.inc(gained)
            _stored_seconds.inc(self._spool.wav.seconds(gained))
