"""Kills a recorder at any step of its input and output, repeatedly, and checks what the last start stores."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.session import EndReason
from domain.session_id import new_session_id, parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID
from domain.transcript import Utterance
from persistence.recording.pipeline import RecordingPipeline
from persistence.recording.session_recorder import SessionRecorder
from persistence.recording.spool_maintenance import SpoolMaintenance
from persistence.recovery.spool_recovery import recover
from persistence.s3.keys import audio_key, parse_tail_key, tail_prefix, transcript_key
from persistence.s3.layout import audio_range
from persistence.session_values import SessionStart
from persistence.spool.spool_home import SpoolHome
from persistence.storing.degradations import Degradations
from persistence.storing.finisher import Finisher
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.restoration import Restoration
from persistence.storing.row_comparison import RowComparison
from persistence.storing.shipper import Shipper
from persistence.storing.spool_reconciliation import SpoolReconciliation
from persistence.storing.writer import SessionWriter
from persistence.wav import WavFormat
from tests.faults.crash_scenario import (
    PART_BYTES,
    Bucket,
    Crash,
    Fate,
    Objects,
    Ownership,
    Row,
    Rows,
    VirtualLoop,
    mortal,
    stored_session_of,
)
from tests.faults.figures import FIGURES


@dataclass(frozen=True)
class Message:
    frames: int
    pause: float
    speaks: bool


@dataclass(frozen=True)
class Schedule:
    """What the client does, and at which steps processes die or calls fail."""

    encoding: str
    messages: list[Message]
    crashes: list[int]
    failing: frozenset[int]
    recovered: frozenset[int] = frozenset()
    """After which crashes another server ends the session from S3, before the next start on the spool."""
    aborts: frozenset[int] = frozenset()
    """Steps before which another party aborts the upload."""
    failovers: frozenset[int] = frozenset()
    """Steps before which Postgres returns to an earlier state."""
    lag: int = 0
    """How many steps Postgres goes back."""


messages = st.builds(
    Message,
    frames=st.one_of(st.integers(1, 50), st.integers(200, 900)),
    pause=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    speaks=st.booleans(),
)
schedules = st.builds(
    Schedule,
    encoding=st.sampled_from(["pcm_s16le", "mulaw", "pcm_f32le"]),
    messages=st.one_of(st.lists(messages, max_size=4), st.lists(messages, min_size=4, max_size=12)),
    crashes=st.lists(st.one_of(st.integers(10, 60), st.integers(30, 250)), min_size=1, max_size=4),
    failing=st.frozensets(st.integers(1, 200), max_size=6),
    recovered=st.frozensets(st.integers(0, 3), max_size=2),
)


@dataclass
class Harness:
    """What outlives processes, and what the client received."""

    spool_dir: Path
    schedule: Schedule
    bucket: Bucket = field(default_factory=Bucket)
    table: dict[Any, Row] = field(default_factory=dict)
    sent: bytearray = field(default_factory=bytearray)
    """All that may have been recorded."""
    acknowledged: int = 0
    finals: list[Utterance] = field(default_factory=list)
    has_begun: bool = False
    was_completed: bool = False
    """A tenant may have seen it."""
    crashes: int = 0
    recoveries: int = 0
    steps: int = 0
    last_steps: int = 0
    """Of the last process."""
    lost: set[int] = field(default_factory=set)
    """Parts that an aborted upload had."""
    past: list[dict[Any, Row]] = field(default_factory=list)
    """What Postgres had before each step of the process."""
    doubted: list[Callable[[], None]] = field(default_factory=list)
    """Notifies the living process of a failover, as its lease does."""

    def __post_init__(self) -> None:
        kind = ("en", "fast", self.schedule.encoding, 16000, 1, True, True)
        self.start = SessionStart(
            parse_session_id(new_session_id()), DEFAULT_TENANT_ID, "life-0", datetime.now(UTC), *kind
        )
        self.wav = WavFormat(self.schedule.encoding, 16000, 1)
        self.random = random.Random(1)

    def live(self, number: int, crash_at: int | None) -> None:
        """One process, from its start to its end or its crash."""
        loop = VirtualLoop()
        asyncio.set_event_loop(loop)
        fate = Fate(crash_at, self.schedule.failing, self.outsider)
        life = Life(self, f"life-{number}", fate)
        try:
            with mortal(fate):
                loop.run_until_complete(_live_or_die(life, fate))
                self.crashes += fate.is_dead
                life.check_promises()
        finally:
            fate.is_dead = True
            life.release()
            loop.close()
            asyncio.set_event_loop(None)
        row = self.table.get(self.start.id)
        self.was_completed = self.was_completed or (row is not None and row.status == "completed")
        self.steps += fate.steps
        self.last_steps = fate.steps

    def remote_recovery(self, crash_at: int | None = None) -> int:
        """Another server considers the owner dead and ends the session without its spool; returns its steps."""
        row = self.table.get(self.start.id)
        if row is None or not row.is_unfinished:
            return 0
        row.worker_id, row.status = "another", "interrupted" if row.status == "active" else row.status
        loop, fate = VirtualLoop(), Fate(crash_at, frozenset())
        rows: Any = Rows(self.table, "another", fate)
        objects: Any = Objects(self.bucket, fate)
        try:
            with mortal(fate), suppress(Crash):
                loop.run_until_complete(RemoteRecovery(objects, rows).end(stored_session_of(row)))
            self.recoveries += 1
        finally:
            loop.close()
        return fate.steps

    def outsider(self, step: int) -> None:
        """Does what others do before a step."""
        self.abort_uploads(step)
        if self.schedule.failovers:
            self.fail_over(step)

    def fail_over(self, step: int) -> None:
        """Promotes a standby that lacks the last transactions."""
        if step > max(self.schedule.failovers):
            return
        self.past.append(copy.deepcopy(self.table))
        if step in self.schedule.failovers:
            self.table.clear()
            self.table.update(copy.deepcopy(self.past[max(0, len(self.past) - 1 - self.schedule.lag)]))
            for doubted in self.doubted:
                doubted()

    def abort_uploads(self, step: int) -> None:
        """Aborts uploads, as an operator or a lifecycle rule does."""
        if step in self.schedule.aborts:
            # Also parts that are still in the spool: they are deleted there before the abort is noticed.
            self.lost.update(number for _, parts in self.bucket.uploads.values() for number in parts.keys() - {1})
            self.bucket.uploads.clear()

    def expected(self, found: bytes) -> bytes:
        """What was sent; silence may replace what is lost."""
        expected = self.sent[: len(found)]
        for number in self.lost:
            begin = (number - 1) * PART_BYTES - self.wav.header_bytes
            for at in range(begin, min(begin + PART_BYTES, len(found))):
                expected[at] = found[at] and expected[at]
        return bytes(expected)

    def in_s3(self) -> int:
        """Audio that another machine could find, from the first byte on."""
        row = self.table.get(self.start.id)
        if row is None or audio_key(self.start.id) in self.bucket.objects:
            return len(self.sent)
        ranges = [
            (tail.first_byte, tail.end)
            for key in self.bucket.objects
            if key.startswith(tail_prefix(self.start.id)) and (tail := parse_tail_key(key)) is not None
        ]
        if row.upload_id in self.bucket.uploads:
            held = self.bucket.uploads[row.upload_id][1]
            ranges += [audio_range(self.wav, number, 1 << 40) for number in row.parts if number in held]
        end_of_audio = 0
        for begin, end in sorted(ranges):
            if begin <= end_of_audio:
                end_of_audio = max(end_of_audio, end)
        return end_of_audio


class Life:
    """One process."""

    def __init__(self, harness: Harness, worker_id: str, fate: Fate) -> None:
        self.harness = harness
        self.worker_id = worker_id
        self.fate = fate
        self.homes: list[SpoolHome] = []
        self.recorder: SessionRecorder | None = None

    async def run(self) -> None:
        harness = self.harness
        rows: Any = Rows(harness.table, self.worker_id, self.fate)
        objects: Any = Objects(harness.bucket, self.fate)
        ownership: Any = Ownership(harness.table, self.worker_id, self.fate)
        shipper = Shipper(objects, rows, flush_seconds=0.1)
        restoration = Restoration(rows, shipper.rewrite_parts)
        harness.doubted = [restoration.doubt]
        writer = SessionWriter(rows, restoration)
        row_comparison = RowComparison(writer, restoration)
        finisher = Finisher(writer, rows, shipper, SpoolReconciliation(objects, rows, ownership), restoration)
        maintenance = SpoolMaintenance(0.2, lambda: None)
        home = SpoolHome.open(harness.spool_dir, self.worker_id)
        self.homes.append(home)
        self.homes += list(SpoolHome.take_over(harness.spool_dir))
        async with asyncio.TaskGroup() as group:
            side_tasks = [group.create_task(each.run()) for each in (shipper, writer, row_comparison, maintenance)]
            while True:
                try:
                    await recover(self.homes, finisher, ownership)
                    break
                except OSError:
                    raise
                except Exception:
                    await asyncio.sleep(0.1)
            if not harness.has_begun:
                pipeline = RecordingPipeline(
                    home, writer, shipper, finisher, maintenance, worker_id=self.worker_id, spool_wait_seconds=0
                )
                await self._record(pipeline)
            while finisher._tasks or restoration.is_due:
                await finisher.close(1e9)
                await asyncio.sleep(0.1)
            for task in side_tasks:
                task.cancel()

    async def _record(self, pipeline: RecordingPipeline) -> None:
        harness = self.harness
        harness.has_begun = True
        try:
            recorder = await pipeline.begin(replace(harness.start, worker_id=self.worker_id))
        except Exception:
            return
        self.recorder = recorder
        for message in harness.schedule.messages:
            audio = harness.random.randbytes(message.frames * recorder.frame_bytes)
            harness.sent += audio
            await recorder.append_audio(audio)
            harness.acknowledged += len(audio)
            if message.speaks:
                at = float(len(harness.finals))
                utterance = Utterance(at, at + 1.0, f"number {len(harness.finals)}", 0.5, "en")
                await pipeline.append_utterance(recorder, utterance)
                harness.finals.append(utterance)
            await asyncio.sleep(message.pause)
        finishing = pipeline.finish(recorder, EndReason("completed"))
        while not finishing.stored.audio_uri and not self.fate.is_dead:  # noqa: ASYNC110 - it is done in the background
            await asyncio.sleep(0.1)

    def check_promises(self) -> None:
        """Audio that was reported as stored survives the loss of the machine."""
        if self.recorder is not None and not (self.harness.schedule.aborts or self.harness.schedule.failovers):
            assert self.harness.in_s3() >= self.recorder.stored_bytes

    def release(self) -> None:
        """Closes what a dead process had open, as the kernel does."""
        for home in self.homes:
            home.release(delete=False)
        if self.recorder is not None and self.recorder.spool is not None:
            self.recorder.spool.close()


async def _live_or_die(life: Life, fate: Fate) -> None:
    living = asyncio.create_task(life.run())
    dying = asyncio.create_task(fate.died.wait())
    await asyncio.wait({living, dying}, return_when=asyncio.FIRST_COMPLETED)
    if not fate.is_dead:
        living.result()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    fate.is_dead = fate.is_dead or bool(others - {dying})
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def check_the_end(harness: Harness) -> None:
    """Checks that no acknowledged audio is missing, and that no object is left over."""
    row = harness.table.get(harness.start.id)
    assert row is None or row.status != "active"
    left = [path for path in harness.spool_dir.glob("*/*") if path.name != "lock"]
    assert left == [], "the spool is empty"
    assert harness.bucket.uploads == {}, "no upload is unfinished"
    audio, transcript = audio_key(harness.start.id), transcript_key(harness.start.id)
    assert set(harness.bucket.objects) <= {audio, transcript}, "no object is left over"
    if row is None or not harness.acknowledged:
        return
    assert row.stored is not None
    assert (row.parts, row.upload_id, row.has_tails) == ({}, None, False)
    wav = harness.bucket.objects[audio]
    size = row.stored_bytes
    assert harness.acknowledged <= size <= len(harness.sent)
    header = harness.wav.header(size)
    audio_found = wav[len(header) : len(header) + size]
    assert wav == header + harness.expected(audio_found) + harness.wav.padding(size)
    assert row.audio_seconds == harness.wav.seconds(size)
    assert sorted(row.finals) == list(range(len(row.finals))), "utterances are numbered from 0, without a gap"
    texts = [each["text"] for each in json.loads(harness.bucket.objects[transcript])["utterances"]]
    assert texts[: len(harness.finals)] == [each.text for each in harness.finals]
    in_rows = [row.finals[index].text for index in sorted(row.finals)]
    assert in_rows[: len(harness.finals)] == texts[: len(harness.finals)]
    if harness.was_completed:
        assert row.status == "completed", "an end reason that a tenant may have read stays"


def run_schedule(schedule: Schedule, spool_dir: Path) -> Harness:
    harness = Harness(spool_dir, schedule)
    for number, crash_at in enumerate([*schedule.crashes, None]):
        harness.live(number, crash_at)
        if number in schedule.recovered and crash_at is not None:
            harness.remote_recovery()
    check_the_end(harness)
    FIGURES.add("crash schedules run")
    FIGURES.add("crashes survived", harness.crashes)
    FIGURES.add("sessions ended by another server before their spool came back", harness.recoveries)
    FIGURES.add("steps of input and output in them", harness.steps)
    FIGURES.add("bytes acknowledged before a crash and compared", harness.acknowledged)
    return harness


@pytest.mark.timeout(900)
def test_a_recorder_killed_at_any_step_loses_nothing_that_it_acknowledged(full: bool) -> None:
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - real files, without a disk's delays

    @settings(
        max_examples=2_000 if full else 50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=not full,
    )
    @given(schedule=schedules)
    def survives(schedule: Schedule) -> None:
        directory = Path(tempfile.mkdtemp(dir=base))
        try:
            run_schedule(schedule, directory)
        finally:
            shutil.rmtree(directory)

    survives()


SCRIPT = [
    Message(300, 0.0, speaks=True),
    Message(800, 0.5, speaks=False),
    Message(900, 0.1, speaks=True),
    Message(400, 0.5, speaks=False),
]


@pytest.mark.parametrize("crash_after", [None, 10, 25, 40])
def test_an_upload_aborted_at_any_step_costs_only_its_own_parts(tmp_path: Path, crash_after: int | None) -> None:
    undisturbed = run_schedule(Schedule("pcm_s16le", SCRIPT, [], frozenset()), tmp_path / "undisturbed")
    lost = 0
    for step in range(1, undisturbed.steps + 1):
        crashes = [] if crash_after is None else [step + crash_after]
        schedule = Schedule("pcm_s16le", SCRIPT, crashes, frozenset(), aborts=frozenset([step]))
        lost += len(run_schedule(schedule, tmp_path / str(step)).lost)
    assert lost > 0, "the scenario is able to lose something"


def test_parts_of_an_aborted_upload_stay_spooled_until_uploaded_again(tmp_path: Path) -> None:
    """Also when the session ends during the second upload, and that audio needs no recognition any more."""
    harness = Harness(tmp_path, Schedule("pcm_s16le", [], [], frozenset()))
    loop, fate = VirtualLoop(), Fate(None, frozenset())
    asyncio.set_event_loop(loop)
    try:
        with mortal(fate):
            loop.run_until_complete(_end_during_the_second_upload(harness, fate))
    finally:
        loop.close()
        asyncio.set_event_loop(None)


async def _end_during_the_second_upload(harness: Harness, fate: Fate) -> None:
    rows: Any = Rows(harness.table, "life-0", fate)
    objects: Any = Objects(harness.bucket, fate)
    await rows.insert([harness.start])
    home = SpoolHome.open(harness.spool_dir, "life-0")
    spool = home.create(harness.start)
    shipper = Shipper(objects, rows, flush_seconds=1e9)
    noting = asyncio.create_task(shipper.run())
    upload = shipper.begin(spool, Degradations())
    audio = random.Random(1).randbytes(4 * PART_BYTES + 500)
    spool.keep_from(0)
    spool.append_audio(audio[: 3 * PART_BYTES])
    upload.appended()
    while len(harness.table[harness.start.id].parts) < 2:  # noqa: ASYNC110 - the loop's time is bounded
        await asyncio.sleep(0.01)
    harness.bucket.uploads.clear()
    put, end_reason = objects.upload_part, asyncio.Event()

    async def upload_and_end(key: str, upload_id: str, number: int, part: Any) -> str:
        if number == 2:
            upload.end()
            spool.keep_from(None)
            end_reason.set()
        return str(await put(key, upload_id, number, part))

    objects.upload_part = upload_and_end
    spool.append_audio(audio[3 * PART_BYTES :])
    upload.appended()
    await end_reason.wait()
    shipped = await shipper.ship(spool)
    noting.cancel()
    spool.close()
    home.release(delete=False)
    assert shipped.audio_bytes == len(audio)
    assert harness.bucket.objects[audio_key(harness.start.id)] == harness.wav.header(len(audio)) + audio


@pytest.mark.parametrize("lag", [3, 25, 1_000])
def test_a_failover_at_any_step_loses_nothing(tmp_path: Path, lag: int) -> None:
    undisturbed = run_schedule(Schedule("pcm_s16le", SCRIPT, [], frozenset()), tmp_path / "undisturbed")
    for step in range(5, undisturbed.steps + 1, 1 if lag == 25 else 3):
        schedule = Schedule("pcm_s16le", SCRIPT, [], frozenset(), failovers=frozenset([step]), lag=lag)
        harness = run_schedule(schedule, tmp_path / str(step))
        if len(harness.finals) == 2:  # it had begun
            row = harness.table[harness.start.id]
            assert (row.status, len(row.finals), row.counted) == ("completed", 2, 2)
            FIGURES.add("failovers at a step")


@pytest.mark.parametrize(("lag", "crash_after"), [(10, 2), (1_000, 2), (25, 30)])
def test_a_failover_at_any_step_and_a_crash_soon_after_lose_nothing(tmp_path: Path, lag: int, crash_after: int) -> None:
    undisturbed = run_schedule(Schedule("pcm_s16le", SCRIPT, [], frozenset()), tmp_path / "undisturbed")
    for step in range(5, undisturbed.steps - crash_after, 2):
        failovers = frozenset([step])
        schedule = Schedule("pcm_s16le", SCRIPT, [], frozenset(), failovers=failovers, lag=lag)
        harness = Harness(tmp_path / str(step), schedule)
        harness.live(0, step + crash_after)
        harness.schedule = replace(schedule, failovers=frozenset())
        if not harness.acknowledged:
            continue  # it had not begun
        is_spooled = bool(list(harness.spool_dir.glob("*/sess_*/session.json")))
        harness.live(1, None)
        # Without a spool it had been stored and its row updated. The process that remembered that is dead: another
        # server ends the row that is left, and where there is none the objects stay for a person to look at.
        if not is_spooled:
            harness.remote_recovery()
        if is_spooled or harness.start.id in harness.table:
            assert harness.start.id in harness.table
            check_the_end(harness)
        else:
            assert set(harness.bucket.objects) == {audio_key(harness.start.id), transcript_key(harness.start.id)}
        FIGURES.add("failovers at a step")


def test_a_session_killed_at_each_of_its_steps(tmp_path: Path) -> None:
    undisturbed = run_schedule(Schedule("pcm_s16le", SCRIPT, [], frozenset()), tmp_path / "undisturbed")
    assert len(undisturbed.sent) > 4 * PART_BYTES
    for step in range(1, undisturbed.steps + 1):
        harness = run_schedule(Schedule("pcm_s16le", SCRIPT, [step], frozenset()), tmp_path / str(step))
        assert harness.crashes == 1


STRIDE = 3
"""`make test` kills at every third step only. After the next death it takes other ones, so that each has its turn."""


def first_step_and_stride(full: bool, number: int) -> tuple[int, int]:
    """Which steps to kill at after the death of this number."""
    return (1, 1) if full else (1 + number % STRIDE, STRIDE)


@pytest.mark.timeout(900)
def test_a_spool_that_comes_back_late_killed_at_each_of_its_steps(tmp_path: Path, full: bool) -> None:
    """Another server has ended the session; what only the spool has is added, wherever that is interrupted."""
    script = [
        Message(300, 0.0, speaks=True),
        Message(800, 0.5, speaks=False),
        Message(900, 0.5, speaks=True),
        Message(700, 0.0, speaks=True),
        Message(400, 0.0, speaks=True),
    ]
    for number, death in enumerate(range(40, 200, 7)):
        first = Schedule("pcm_s16le", script, [death], frozenset(), frozenset({0}))
        undisturbed = run_schedule(first, tmp_path / f"{death}")
        if not undisturbed.recoveries:
            continue  # it had been stored by then
        begin, stride = first_step_and_stride(full, number)
        for step in range(begin, undisturbed.last_steps + 1, stride):
            harness = run_schedule(replace(first, crashes=[death, step]), tmp_path / f"{death}-{step}")
            assert harness.crashes == 2


@pytest.mark.timeout(900)
def test_a_remote_recovery_killed_at_each_step_before_its_spool_comes_back(tmp_path: Path, full: bool) -> None:
    """The object that it has put may have less of the session than the spool."""
    script = [Message(900, 0.1, speaks=True) for _ in range(5)]
    for number, death in enumerate(range(40, 120, 8)):
        for step in count(*first_step_and_stride(full, number)):
            harness = Harness(tmp_path / f"{death}-{step}", Schedule("pcm_s16le", script, [], frozenset()))
            harness.live(0, death)
            steps = harness.remote_recovery(crash_at=step)
            harness.live(1, None)
            check_the_end(harness)
            FIGURES.add("crash schedules run")
            FIGURES.add("crashes survived", harness.crashes)
            if steps < step:
                break  # it was not cut short
