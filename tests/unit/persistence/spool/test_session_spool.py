"""A session's directory: whatever a crash leaves is a prefix of what was written."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.session import EndReason
from domain.session_id import new_session_id, parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID
from domain.transcript import TimedWord, Utterance
from persistence.s3 import layout
from persistence.session_values import Conclusion, Progress, SessionStart
from persistence.spool import session_spool as spool_module
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool, sync_files

PART = 1000

numbers = st.floats(0, 1e6, allow_nan=False)
words = st.builds(TimedWord, word=st.text(), start=numbers, end=numbers, confidence=numbers)
utterances = st.builds(
    Utterance,
    start=numbers,
    end=numbers,
    text=st.text(),
    confidence=numbers,
    language=st.sampled_from(["en", "es"]),
    words=st.lists(words, max_size=2).map(tuple),
)


def a_start(**changes: Any) -> SessionStart:
    values: dict[str, Any] = {
        "id": parse_session_id(new_session_id()),
        "tenant_id": DEFAULT_TENANT_ID,
        "worker_id": "worker",
        "started_at": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        "language": "auto",
        "model": "fast",
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
        "channels": 1,
        "store_audio": True,
        "store_transcript": True,
    }
    return SessionStart(**values | changes)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PART_BYTES", PART)


def parts_of(spool: SessionSpool) -> list[bytes]:
    total = spool.audio_bytes()
    made = []
    for number in range(1, layout.part_count(spool.wav, total) + 1):
        audio = spool.read_audio_or_none(*layout.audio_range(spool.wav, number, total))
        assert audio is not None
        made.append(layout.part(spool.wav, number, total, audio))
    return made


def reopened(spool: SessionSpool) -> SessionSpool:
    spool.close()
    again = SessionSpool.open(spool.directory)
    assert again is not None
    return again


def test_a_spooled_session_is_read_with_start_and_conclusion(tmp_path: Path) -> None:
    start = a_start(previous_session_id=parse_session_id(new_session_id()), enhance_on_end=True)
    spool = SessionSpool.create(tmp_path, start)
    assert reopened(spool).manifest.start == start
    assert reopened(spool).manifest.conclusion is None
    conclusion = Conclusion(EndReason("error", "why"), datetime.now(UTC), Progress(1.5, 2, 3, "es"))
    spool.conclude(conclusion)
    assert reopened(spool).manifest.conclusion == conclusion


def test_the_clients_address_is_not_in_the_spool(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start(client_ip="203.0.113.9"))
    assert b"203.0.113.9" not in (spool.directory / "session.json").read_bytes()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_f32le", "mulaw"])
@pytest.mark.parametrize("size", [0, 4, 900, 920, 1000, 1004, 2920, 5000])
def test_parts_of_one_size_make_up_the_file(tmp_path: Path, encoding: str, size: int) -> None:
    spool = SessionSpool.create(tmp_path, a_start(encoding=encoding))
    audio = os.urandom(size)
    for at in range(0, size, 128):
        spool.append_audio(audio[at : at + 128])
    again = reopened(spool)
    parts = parts_of(again)
    assert b"".join(parts) == again.wav.header(size) + audio + again.wav.padding(size)
    assert {len(part) for part in parts[:-1]} <= {PART}
    assert 0 < len(parts[-1]) <= PART


@pytest.mark.usefixtures("small_parts")
def test_a_segment_ends_where_a_part_of_the_stored_file_ends(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(2500))
    sizes = [path.stat().st_size for path in spool.segments()]
    assert sizes == [PART - spool.wav.header_bytes, PART, 2500 - 2 * PART + spool.wav.header_bytes]


@pytest.mark.usefixtures("small_parts")
def test_only_segments_that_are_not_needed_may_be_deleted(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(3500))
    assert [number for number in range(1, 6) if spool.may_delete_segment(number)] == [2, 3]
    spool.keep_from(1500)
    assert [number for number in range(1, 6) if spool.may_delete_segment(number)] == []
    spool.keep_from(2500)
    assert [number for number in range(1, 6) if spool.may_delete_segment(number)] == [2]
    spool.delete_segment(2)
    spool.delete_segment(2)
    assert spool.audio_bytes() == 3500
    assert spool.read_audio(2000, 1500) == bytes(1500)
    assert spool.read_audio_or_none(1000, 1100) is None
    with pytest.raises(FileNotFoundError):
        spool.read_audio(500, 1000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("space", range(0, 2600, 130))
def test_an_append_to_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: int) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    first = os.urandom(800)
    spool.append_audio(first)
    left, write = space, os.write

    def short_write(descriptor: int, data: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(OSError, match="No space"):
        spool.append_audio(os.urandom(2600))
    monkeypatch.undo()
    monkeypatch.setattr(layout, "PART_BYTES", PART)
    assert spool.audio_bytes() == 800
    more = os.urandom(2600)
    spool.append_audio(more)
    assert b"".join(parts_of(reopened(spool))) == spool.wav.header(3400) + first + more


def test_a_used_up_budget_acts_as_a_full_disk(tmp_path: Path) -> None:
    budget = SpoolBudget(1000)
    first = SessionSpool.create(tmp_path, a_start(), budget)
    second = SessionSpool.create(tmp_path, a_start(), budget)
    first.append_audio(bytes(600))
    with pytest.raises(OSError, match="limit"):
        second.append_audio(bytes(600))
    assert second.audio_bytes() == 0
    first.delete()
    assert budget.used_bytes == 0
    second.append_audio(bytes(600))
    again = SessionSpool.open(second.directory, budget)
    assert again is not None
    assert budget.used_bytes == 1200


def test_a_final_torn_by_a_full_disk_hides_no_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    finals = [Utterance(0, 1, f"number {number}", 1, "en") for number in range(3)]
    spool.append_utterance(finals[0])
    write = os.write

    def torn(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:-10])

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(OSError, match="No space"):
        spool.append_utterance(finals[1])
    monkeypatch.undo()
    spool.append_utterance(finals[2])
    assert spool.utterances() == [finals[0], finals[2]]


def test_appended_data_is_synced_once(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(10))
    spool.append_utterance(Utterance(0, 1, "x", 1, "en"))
    taken = spool.take_unsynced()
    assert len(taken) == 3
    sync_files(taken)
    assert spool.take_unsynced() == []
    spool.append_audio(bytes(10))
    taken = spool.take_unsynced()
    assert len(taken) == 1
    sync_files(taken)


def test_session_json_is_renamed_after_everything_else_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checks the order that protects against power failure, which killing a process cannot test."""
    events: list[str | int] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)

    def inode(*names: str) -> int:
        return spool.directory.joinpath(*names).stat().st_ino

    spool = SessionSpool.create(tmp_path, a_start())
    assert events == [inode("session.json"), "rename", inode(), tmp_path.stat().st_ino]
    spool.append_audio(bytes(3200))
    spool.append_utterance(Utterance(0.0, 1.0, "one", 0.5, "en"))
    events.clear()
    spool.conclude(Conclusion(EndReason("completed"), datetime.now(UTC), Progress()))
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert before == [inode("audio.00001"), inode("utterances.jsonl"), inode("session.json")]
    assert after == [inode()]


def test_audio_truncated_within_a_sample_loses_only_that_sample(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start(channels=2))
    spool.append_audio(bytes(range(11)))
    assert spool.audio_bytes() == 8
    assert b"".join(parts_of(spool)) == spool.wav.header(8) + bytes(range(8))


@settings(max_examples=60, deadline=None)
@given(finals=st.lists(utterances, max_size=5), data=st.data())
def test_a_torn_last_line_leaves_the_utterances_before_it(finals: list[Utterance], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as home:
        spool = SessionSpool.create(Path(home), a_start())
        for utterance in finals:
            spool.append_utterance(utterance)
        again = reopened(spool)
        assert again.utterances() == finals
        path = again.directory / "utterances.jsonl"
        if not path.exists():
            return
        cut = data.draw(st.integers(0, path.stat().st_size))
        whole = path.read_bytes()[:cut].count(b"\n")
        os.truncate(path, cut)
        assert again.utterances() == finals[:whole]


@settings(max_examples=30, deadline=None)
@given(finals=st.lists(utterances, max_size=3), garbage=st.binary(max_size=50))
def test_garbage_at_the_end_does_not_hide_the_utterances_before_it(finals: list[Utterance], garbage: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        spool = SessionSpool.create(Path(home), a_start())
        for utterance in finals:
            spool.append_utterance(utterance)
        with (spool.directory / "utterances.jsonl").open("ab") as file:
            file.write(b"\x00" + garbage)
        assert reopened(spool).utterances() == finals


def test_a_directory_whose_deletion_was_interrupted_is_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(10))

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "delete_directory", killed)
        with pytest.raises(KeyboardInterrupt):
            spool.delete()
    assert SessionSpool.open(spool.directory) is None


def test_an_empty_directory_is_no_session(tmp_path: Path) -> None:
    (tmp_path / "sess_1").mkdir()
    assert SessionSpool.open(tmp_path / "sess_1") is None


def test_audio_without_session_json_is_damage(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(10))
    (spool.directory / "session.json").unlink()
    with pytest.raises(ValueError, match="is missing"):
        SessionSpool.open(spool.directory)


def test_deletion_leaves_nothing(tmp_path: Path) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    spool.append_audio(bytes(10))
    spool.append_utterance(Utterance(0, 1, "x", 1, "en"))
    spool.delete()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 2}', b"[1]", b'{"version": 1, "session_id": "x"}'])
def test_the_error_names_a_damaged_session_json(tmp_path: Path, damage: bytes) -> None:
    spool = SessionSpool.create(tmp_path, a_start())
    (spool.directory / "session.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"session\.json|Expecting value"):
        SessionSpool.open(spool.directory)
