"""`dalston jobs` and `dalston sessions enhance` with a fake client."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from dalston import errors
from dalston.cli import connection, job_table
from dalston.cli.exits import ExitCode
from dalston.cli.main import main
from dalston.cli.shared_options import SharedOptions
from dalston.events import Reconnecting
from dalston.records import Job, JobPage, JobStatus, Session, SessionStatus

JOB_ID = "job_" + "a" * 32
SESSION_ID = "sess_" + "b" * 32
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
QUEUED = Job(
    JOB_ID, SESSION_ID, "enhance", JobStatus.QUEUED, "turn", 0.0, "accurate", "auto", ("Norland",), False, 90.0, NOON
)
RUNNING = replace(QUEUED, status=JobStatus.RUNNING, step="transcribing", progress=0.25, eta_seconds=30.0)
COMPLETED = replace(QUEUED, status=JobStatus.COMPLETED, step="", progress=1.0, version=2, ended_at=NOON)
FAILED = replace(QUEUED, status=JobStatus.FAILED, step="", error="the audio is damaged", ended_at=NOON)


class FakeClient:
    """A client whose `jobs` and `sessions` are itself."""

    def __init__(self) -> None:
        self.jobs = self.sessions = self
        self.total = 130
        self.changes = [QUEUED, replace(QUEUED, queue_position=2), RUNNING, COMPLETED]
        self.asked: list[dict[str, Any]] = []
        self.enhancement: str | None = JOB_ID

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def page(self, *, limit: int, cursor: str | None, **filters: Any) -> JobPage:
        self.asked.append(filters)
        numbers = range(int(cursor or 0), min(int(cursor or 0) + limit, self.total))
        jobs = tuple(replace(QUEUED, id=f"job_{each:032x}") for each in numbers)
        return JobPage(jobs, str(numbers.stop) if numbers.stop < self.total else None)

    def get(self, any_id: str) -> Job | Session:
        if any_id.startswith("job_"):
            return replace(QUEUED, id=any_id, queue_position=1)
        return Session(
            any_id, SessionStatus.COMPLETED, "en", "fast", "pcm_s16le", 16_000, 1, True, True, True, 12.5, 3, 20,
            NOON, NOON, enhancement_job_id=self.enhancement,
        )  # fmt: skip

    def cancel(self, job_id: str) -> Job:
        match job_id[-1]:
            case "0":
                return replace(QUEUED, id=job_id, status=JobStatus.CANCELED)
            case "1":
                return replace(RUNNING, id=job_id)
            case "2":
                return replace(COMPLETED, id=job_id)
        raise errors.NotFound("job was not found")

    def retry(self, job_id: str) -> Job:
        if job_id.endswith("0"):
            raise errors.JobActive("the job has not ended")
        return QUEUED

    def enhance(self, session_id: str, **options: Any) -> Job:
        self.asked.append(options)
        if session_id.endswith("0"):
            raise errors.JobRunning("it is being transcribed", metadata={"job_id": JOB_ID})
        return QUEUED

    def watch(self, job_id: str, *, on_reconnect: Callable[[Reconnecting], None]) -> Iterator[Job]:
        on_reconnect(Reconnecting(1, 0.5, "gone"))
        for job in self.changes:
            yield replace(job, id=job_id)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient()
    monkeypatch.setattr(connection, "connect", lambda _ctx: client)
    return client


def test_the_list_is_a_table_or_json(fake: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "list", "--limit", "120", "--status", "queued", "--session", SESSION_ID]) == 0
    captured = capsys.readouterr()
    lines = [line.split("\t") for line in captured.out.splitlines()]
    assert len(lines) == 120
    assert lines[0][:8] == [f"job_{0:032x}", "queued", "0%", SESSION_ID, "enhance", "accurate", "auto", "90.0 s"]
    assert "there are more jobs" in captured.err
    assert fake.asked[0] == {"status": "queued", "kind": None, "session_id": SESSION_ID}
    assert main(["jobs", "list", "--all", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len({job["id"] for job in listed["jobs"]}) == 130
    fake.total = 0
    assert main(["jobs", "list"]) == 0
    assert capsys.readouterr().err == "there are no jobs\n"
    assert main(["jobs", "list", "--kind", "upload"]) == 0
    assert capsys.readouterr().err == "no jobs match\n"


@pytest.mark.usefixtures("fake")
def test_a_job_is_shown_with_its_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "show", JOB_ID]) == 0
    out = capsys.readouterr().out
    assert JOB_ID in out
    assert "Norland" in out
    assert "1 job before it" in out
    assert main(["jobs", "show", JOB_ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queue_position"] == 1
    assert main(["jobs", "show", "job_1"]) == ExitCode.USAGE
    assert "not a job id" in capsys.readouterr().err


@pytest.mark.usefixtures("fake")
def test_jobs_are_canceled_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"job_{each:032x}" for each in (0, 1, 3, 2)]
    assert main(["jobs", "cancel", *ids]) == ExitCode.NOT_FOUND
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"canceled {ids[0]}",
        f"canceling {ids[1]}",
        f"{ids[3]} has already ended: completed",
    ]
    assert ids[2] in captured.err


@pytest.mark.usefixtures("fake")
def test_an_ended_job_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "retry", JOB_ID]) == 0
    assert JOB_ID in capsys.readouterr().out
    assert main(["jobs", "retry", "job_" + "0" * 32]) == ExitCode.NOT_NOW
    assert main(["jobs", "retry", JOB_ID, "--wait"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "version 2 of the transcript"


def test_a_watch_prints_each_change_and_exits_by_the_outcome(
    fake: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "watch", JOB_ID]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("queued since ")
    assert lines[1].endswith("2 jobs before it")
    assert lines[2:] == ["transcribing, 25% done, 30.0 s left", "version 2 of the transcript"]
    assert captured.err == "reconnecting in 0.5 s: gone\n"
    assert main(["jobs", "watch", JOB_ID, "--json"]) == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == [
        "queued",
        "queued",
        "running",
        "completed",
    ]
    fake.changes = [FAILED]
    assert main(["jobs", "watch", JOB_ID]) == ExitCode.FAILED
    assert capsys.readouterr().out == "failed: the audio is damaged\n"


def test_a_session_is_enhanced_with_its_options(fake: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "accurate", "-l", "fr", "--vocabulary", "Norland, Dashwood", "--vocabulary", "Elinor"]
    assert main(["sessions", "enhance", SESSION_ID, *words, "--no-linked", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == JOB_ID
    assert fake.asked == [
        {
            "model": "accurate",
            "language": "fr",
            "vocabulary": ["Norland", "Dashwood", "Elinor"],
            "linked": False,
        }
    ]
    assert main(["sessions", "enhance", SESSION_ID, "--wait"]) == 0
    captured = capsys.readouterr()
    assert f"created {JOB_ID}" in captured.err
    assert captured.out.splitlines()[-1] == "version 2 of the transcript"
    assert fake.asked[-1] == {"model": None, "language": None, "vocabulary": [], "linked": None}
    assert main(["sessions", "enhance", "sess_" + "0" * 32]) == ExitCode.NOT_NOW
    fake.changes = [FAILED]
    assert main(["sessions", "enhance", SESSION_ID, "--wait"]) == ExitCode.FAILED


def test_a_session_is_shown_with_its_job_to_people_only(
    fake: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with redirect_stdout(screen):
        assert main(["sessions", "get", SESSION_ID]) == 0
    assert "1 job before it" in screen.getvalue()
    assert main(["sessions", "get", SESSION_ID]) == 0
    assert "before it" not in capsys.readouterr().out
    fake.enhancement = None
    screen = Terminal()
    with redirect_stdout(screen):
        assert main(["sessions", "get", SESSION_ID]) == 0
    assert "before it" not in screen.getvalue()


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (replace(QUEUED, step="worker"), "queued since 3 h; no worker is running"),
        (replace(QUEUED, queue_position=0), "queued since 3 h"),
        (replace(QUEUED, queue_position=1000), "queued since 3 h; 1000 or more jobs before it"),
        (replace(QUEUED, step="retry"), "queued since 3 h; an attempt failed, and it is tried again"),
        (replace(RUNNING, cancel_requested=True), "being canceled"),
        (replace(RUNNING, step="listening", eta_seconds=None), "detecting language and speech, 25% done"),
        (replace(COMPLETED, verdict="accepted"), "version 2 of the transcript"),
        (
            replace(COMPLETED, verdict="doubtful", verdict_reason="fewer words"),
            "version 2 of the transcript, doubtful: fewer words",
        ),
        (replace(COMPLETED, version=None), "completed"),
        (FAILED, "failed: the audio is damaged"),
        (replace(FAILED, status=JobStatus.CANCELED, error=None), "canceled"),
    ],
)
def test_the_state_of_a_job_is_a_phrase(job: Job, expected: str) -> None:
    assert job_table.state(job, NOON + timedelta(hours=3, minutes=10)) == expected


def test_enhance_stores_the_audio() -> None:
    given = SharedOptions(enhance=True).transcribe_options()
    assert (given["enhance_on_end"], given["store_audio"], given["store_transcript"]) == (True, True, False)
    assert "enhance_on_end" not in SharedOptions(store=True).transcribe_options()
    with pytest.raises(Exception, match="--enhance needs the audio"):
        SharedOptions(enhance=True, store_audio=False).transcribe_options()
