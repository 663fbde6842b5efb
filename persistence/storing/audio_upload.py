"""One session's audio on its way from the spool to S3: while the session runs, and when it has ended.

While it runs, every full segment but the first becomes a part of a multipart upload, and what is in no part yet is put
every flush interval as a tail object. A segment and the tails it covers go only when Postgres has the part's ETag. At
the end the rest follows: the last part, part 1 with the header, and the upload is complete.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from prometheus_client import Counter, Histogram

from domain.errors import StorageUnavailable
from persistence.backoff import Backoff
from persistence.errors import LeaseLost, NotOwner, ObjectNotFound, ObjectStoreUnavailable, UploadNotFound
from persistence.postgres.rows import SessionRows
from persistence.s3 import layout
from persistence.s3.assembly import assemble
from persistence.s3.keys import Tail, audio_key, parse_tail_key, tail_key, tail_prefix
from persistence.s3.objects import Body, ObjectStore
from persistence.session_values import StoredPart
from persistence.spool.session_spool import SessionSpool
from persistence.storing.degradations import LOST, OBJECT_STORE, PARTS, Degradations
from persistence.storing.part_batcher import PartBatcher
from persistence.storing.remote_recovery import stored_header, upload_of
from persistence.wav import data_bytes
from telemetry.logs import get_logger

log = get_logger(__name__)

_WAV: Final = "audio/wav"
_RAW: Final = "application/octet-stream"

_STORED: Final = (
    "Audio that this process has made safe in S3 for the first time. Not counted: what an earlier process had put there"
    " and what is added to stored sessions (dalston_extended_audio_bytes_total)"
)
_stored_bytes = Counter("dalston_stored_audio_bytes_total", _STORED)
_stored_seconds = Counter("dalston_stored_audio_seconds_total", _STORED)
_lost_seconds = Counter("dalston_lost_audio_seconds_total", "Audio that was recorded and is replaced by silence")
_uploads_lost = Counter("dalston_uploads_lost_total", "Unfinished uploads of ours that somebody else has aborted")
_put_seconds = Histogram("dalston_audio_put_seconds", "From the spool to S3, one object or part", ["kind"])


@dataclass(frozen=True, slots=True)
class Ways:
    """What all uploads of a process use."""

    objects: ObjectStore
    rows: SessionRows
    part_batcher: PartBatcher
    slots: asyncio.Semaphore
    """Bounds the parts and tails that are on their way."""
    flush_seconds: float
    check: Callable[[], None]
    """Raises LeaseLost when this process may not write."""


class AudioUpload:
    """One owner task at a time: `run` while the session runs, then `finish` and `clean`."""

    def __init__(
        self, spool: SessionSpool, ways: Ways, degradations: Degradations, *, is_recovered: bool = False
    ) -> None:
        self._spool = spool
        self._ways = ways
        self._degradations = degradations
        self._id = spool.manifest.start.id
        self._key = audio_key(self._id)
        self._is_known = not is_recovered
        self._is_stored = False
        self._upload_id: str | None = None
        self._parts: dict[int, StoredPart] = {}
        self._unrecorded: StoredPart | None = None
        self._covered_segments: set[int] = set()
        self._lost_parts: set[int] = set()
        self._tails: list[Tail] = []
        self._safe_bytes = 0
        # Of an object that an earlier process has put: none that is shorter takes its place.
        self._object_total = 0
        self._flush_at = time.monotonic() + ways.flush_seconds
        self._woken = asyncio.Event()
        self._is_ending = False
        self._are_parts_doubtful = False

    @property
    def stored_bytes(self) -> int:
        """Audio that survives the loss of this machine, from the first byte on without a gap."""
        return self._safe_bytes

    @property
    def has_tails(self) -> bool:
        """Whether there are tail objects, as far as this knows."""
        return bool(self._tails)

    def appended(self) -> None:
        """Audio was appended to the spool: a segment may be full."""
        if self._has_full_segment():
            self._woken.set()

    def flush_soon(self) -> None:
        """What is in no part yet is put at once and not at the next interval."""
        self._flush_at = time.monotonic()
        self._woken.set()

    def parts_again(self) -> None:
        """Postgres may have lost the parts that it was told of: it is told again."""
        self._are_parts_doubtful = bool(self._parts)
        if self._are_parts_doubtful:
            self._woken.set()

    def end(self) -> None:
        """`run` is to return after the step at hand."""
        self._is_ending = True
        self._woken.set()

    async def run(self) -> None:
        """Ships until `end` or until the session is not this process's any more."""
        backoff = Backoff()
        while not self._is_ending:
            try:
                await self._advance_or_begin_anew()
            except (NotOwner, LeaseLost):
                log.warning("shipping stops: the session is not this process's any more", session_id=self._session_id)
                return
            except (StorageUnavailable, OSError) as error:
                log.warning("shipping waits", session_id=self._session_id, reason=str(error))
                await self._pause(backoff.next())
            else:
                backoff.reset()
                if not self._has_full_segment():
                    await self._pause(self._flush_at - time.monotonic())

    async def finish(self) -> tuple[str, int]:
        """Makes the object of an ended session; gives its URI and how much audio it holds. May be repeated.

        Raises:
            StorageUnavailable: S3, Postgres or the disk does not do its part; call again.
            NotOwner, LeaseLost: the session is not this process's any more.
        """
        await self._learn()
        total = self._total_bytes()
        if not self._is_stored:
            try:
                await self._finish(total)
            except UploadNotFound:
                if not await self._ways.objects.has(self._key, self._spool.wav.file_bytes(total)):
                    await self._begin_anew()
                    raise
            self._is_stored = True
            self._advance_to(total)
        return self._ways.objects.uri(self._key), total

    async def clean(self) -> None:
        """Removes what the object has made superfluous. To be called when its URI is in the row. May be repeated.

        Raises:
            StorageUnavailable: S3 does not do its part; call again.
        """
        self._ways.check()
        await self._ways.objects.delete_all([tail_key(self._id, tail) for tail in self._tails])
        self._tails = []
        if layout.part_count(self._spool.wav, self._total_bytes()) > 1:
            # An answer to the beginning of an upload that was lost left one that nobody has the id of.
            await self._ways.objects.abort_uploads(self._key)

    @property
    def _session_id(self) -> str:
        return self._spool.manifest.start.session_id

    def _has_full_segment(self) -> bool:
        return layout.end_byte(self._spool.wav, self._next_part) <= self._spool.written_bytes

    @property
    def _next_part(self) -> int:
        """The first part after part 1 that is not in Postgres. They are shipped in their order."""
        return max(2, len(self._parts) + (1 if 1 in self._parts else 2))

    async def _pause(self, seconds: float) -> None:
        if self._is_ending:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _advance_or_begin_anew(self) -> None:
        try:
            await self._advance()
        except UploadNotFound:
            # Not only at the session's end: until then all audio after part 1 would be on this machine alone.
            await self._begin_anew()
            raise

    async def _tell_parts_again(self) -> None:
        parts = [(self._id, part) for part in self._parts.values()]
        if self._id in await self._ways.rows.add_parts(parts):
            self._are_parts_doubtful = False
        elif not await self._ways.rows.exists(self._id):
            raise NotOwner

    async def _advance(self) -> None:
        wav, written = self._spool.wav, self._spool.written_bytes
        first_end = layout.end_byte(wav, 1)
        if self._safe_bytes < first_end <= written:
            # Part 1 comes last, so its audio is safe in tails only; parts follow when there is no gap before them.
            await self._flush(first_end)
        failure = await self._ship_segments()
        # Also when Postgres is away, which parts need and tails do not.
        if time.monotonic() >= self._flush_at and not self._is_ending:
            await self._flush(self._spool.written_bytes)
            self._flush_at = time.monotonic() + self._ways.flush_seconds
        if failure is not None:
            raise failure

    async def _ship_segments(self) -> StorageUnavailable | OSError | None:
        try:
            if self._are_parts_doubtful:
                await self._tell_parts_again()
            while not self._is_ending and self._has_full_segment():
                await self._ship_segment(self._next_part)
            await self._release()
        except (StorageUnavailable, OSError) as error:
            return error
        return None

    async def _ship_segment(self, number: int) -> None:
        part = self._unrecorded
        if part is None or part.number != number:
            part = await self._put_part(number, self._spool.written_bytes, may_be_last=False)
            self._unrecorded = part
        await self._record(part)
        self._advance_to(layout.end_byte(self._spool.wav, number))
        self._covered_segments.add(number)
        await self._drop_tails(number)

    async def _record(self, part: StoredPart) -> None:
        with self._degradations.watch(PARTS):
            await self._ways.part_batcher.add(self._id, part)
        self._parts[part.number] = part
        self._unrecorded = None

    async def _release(self) -> None:
        for number in [each for each in self._covered_segments if self._spool.may_delete_segment(each)]:
            await asyncio.to_thread(self._spool.delete_segment, number)
            self._covered_segments.discard(number)

    async def _drop_tails(self, number: int) -> None:
        end = layout.end_byte(self._spool.wav, number)
        covered = [tail for tail in self._tails if tail.end <= end and tail.first_byte >= self._first_byte(number)]
        await self._ways.objects.delete_all([tail_key(self._id, tail) for tail in covered])
        self._tails = [tail for tail in self._tails if tail not in covered]

    async def _flush(self, end: int) -> None:
        for begin, cut in layout.split(self._spool.wav, self._safe_bytes, end):
            await self._put_tail(Tail(begin, cut - begin))

    async def _put_tail(self, tail: Tail) -> None:
        with self._degradations.watch(OBJECT_STORE):
            async with self._ways.slots:
                audio = await asyncio.to_thread(self._spool.read_audio, tail.first_byte, tail.size)
                # Known before it is there: an answer may be lost.
                self._tails.append(tail)
                await self._put("tail", tail_key(self._id, tail), audio, _RAW)
        self._advance_to(tail.end)

    async def _put(self, kind: Literal["tail", "whole"], key: str, body: Body, content_type: str) -> None:
        self._ways.check()
        with _put_seconds.labels(kind).time():
            await self._ways.objects.put(key, body, content_type)

    async def _put_part(self, number: int, total: int, *, may_be_last: bool = True) -> StoredPart:
        with self._degradations.watch(OBJECT_STORE):
            async with self._ways.slots:
                body = await self._body(number, total, may_be_last=may_be_last)
                self._ways.check()
                if self._upload_id is None:
                    self._upload_id = await self._ways.objects.create_upload(self._key, _WAV)
                with _put_seconds.labels("part").time():
                    etag = await self._ways.objects.upload_part(self._key, self._upload_id, number, body)
        return StoredPart(self._upload_id, number, etag, len(body))

    async def _finish(self, total: int) -> None:
        wav = self._spool.wav
        count = layout.part_count(wav, total)
        if count == 1 and self._upload_id is None:
            with self._degradations.watch(OBJECT_STORE):
                async with self._ways.slots:
                    await self._put("whole", self._key, await self._body(1, total), _WAV)
            return
        for number in (*range(2, count + 1), 1):
            await self._finish_part(number, total)
        self._ways.check()
        assert self._upload_id is not None  # noqa: S101 - there are parts
        parts = [self._parts[number] for number in sorted(self._parts)]
        with self._degradations.watch(OBJECT_STORE):
            await self._ways.objects.complete_upload(self._key, self._upload_id, parts)

    async def _finish_part(self, number: int, total: int) -> None:
        if number in self._parts:
            return
        unrecorded = self._unrecorded
        if unrecorded is None or unrecorded.number != number:
            unrecorded = await self._put_part(number, total)
            self._unrecorded = unrecorded
        await self._record(unrecorded)

    async def _body(self, number: int, total: int, *, may_be_last: bool = True) -> Body:
        """A part, from the spool; what is not there, from S3; the rest is silence."""
        wav = self._spool.wav
        begin, end = layout.audio_range(wav, number, total)
        before, after = layout.frame(wav, number, total) if may_be_last else (b"", b"")
        spooled = await asyncio.to_thread(self._spool.spooled_part, begin, end)
        if spooled is not None:
            return replace(spooled, before=before, after=after)
        return b"".join((before, await self._patched_audio(begin, end), after))

    async def _patched_audio(self, begin: int, end: int) -> bytes:
        wav = self._spool.wav
        patched = bytearray(wav.silence * (end - begin))
        missing = bytearray(b"\1" * (end - begin))

        def patch(position: int, audio: bytes) -> None:
            first, last = max(begin, position), min(end, position + len(audio))
            if first < last:
                patched[first - begin : last - begin] = audio[first - position : last - position]
                missing[first - begin : last - begin] = bytes(last - first)

        patch(begin, await self._stored_audio(begin, end))
        for tail in self._tails:
            if tail.first_byte < end and tail.end > begin:
                # One whose answer was lost need not be there.
                with suppress(ObjectNotFound):
                    patch(tail.first_byte, await self._ways.objects.read(tail_key(self._id, tail)))
        patch(*await asyncio.to_thread(self._spool.segment_with, begin))
        if lost := sum(missing):
            self._tell_lost(layout.part_of(wav, begin), wav.seconds(lost))
        return bytes(patched)

    def _tell_lost(self, number: int, seconds: float) -> None:
        if number not in self._lost_parts:  # Once, however often it is tried to store it.
            self._lost_parts.add(number)
            self._degradations.begin(LOST)
            _lost_seconds.inc(seconds)
            log.error("audio is lost and replaced by silence", session_id=self._session_id, seconds=seconds)

    async def _stored_audio(self, begin: int, end: int) -> bytes:
        """What of a stretch is in the object that another process made and did not say so."""
        stop, header_bytes = min(end, await self._object_bytes()), self._spool.wav.header_bytes
        if stop <= begin:
            return b""
        return await self._ways.objects.read_range(self._key, header_bytes + begin, header_bytes + stop)

    async def _object_bytes(self) -> int:
        """How much audio the object has, 0 without one."""
        try:
            return data_bytes(await stored_header(self._ways.objects, self._id, self._spool.wav))
        except (ObjectNotFound, ValueError):
            return 0

    async def _learn(self) -> None:
        """What an earlier process did for the session: from its row and from S3."""
        if self._is_known:
            return
        upload = await upload_of(self._ways.objects, self._ways.rows, self._id)
        keys = await self._ways.objects.list(tail_prefix(self._id))
        self._tails = [tail for key in keys if (tail := parse_tail_key(key)) is not None]
        self._is_stored = upload.is_stored
        self._upload_id = upload.upload_id
        in_pieces = assemble(self._spool.wav, upload.parts, self._tails).audio_bytes
        self._object_total = await self._object_bytes()
        self._safe_bytes = max(in_pieces, self._object_total)
        # Part 1 and the last tell how long the recording is, or end with it: who made them may have known less of it.
        self._parts = {part.number: part for part in _whole(upload.parts)}
        self._is_known = True

    def _total_bytes(self) -> int:
        """How much audio there is. After a power cut S3 may have more of it than the disk."""
        wav = self._spool.wav
        in_parts = max((layout.end_byte(wav, part.number) for part in _whole(self._parts.values())), default=0)
        in_tails = max((tail.end for tail in self._tails), default=0)
        total = max(self._spool.written_bytes, in_parts, in_tails, self._object_total)
        return total - total % wav.frame_bytes

    async def _begin_anew(self) -> None:
        """The upload is gone, aborted by whoever; the next attempt uploads what there is.

        Raises:
            StorageUnavailable: the store lists the upload that it did not find a moment ago.
        """
        if self._upload_id in await self._ways.objects.uploads(self._key):
            raise ObjectStoreUnavailable("the store does not find an upload that it lists")
        # What is still here stays until it is in a part again.
        self._covered_segments.clear()
        await self._ways.rows.delete_upload(self._id)
        _uploads_lost.inc()
        log.error("an unfinished upload is gone", session_id=self._session_id, parts=len(self._parts))
        self._upload_id, self._parts, self._unrecorded = None, {}, None

    def _first_byte(self, number: int) -> int:
        return layout.first_byte(self._spool.wav, number)

    def _advance_to(self, position: int) -> None:
        gained = position - self._safe_bytes
        if gained > 0:
            self._safe_bytes = position
            _stored_bytes.inc(gained)
            _stored_seconds.inc(self._spool.wav.seconds(gained))


def _whole(parts: Iterable[StoredPart]) -> list[StoredPart]:
    """The parts that are full and not the first: audio alone, whatever length the recording has."""
    return [part for part in parts if part.number > 1 and part.size == layout.PART_BYTES]
