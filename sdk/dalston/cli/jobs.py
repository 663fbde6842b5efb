"""`dalston jobs`: batch jobs."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import connection, documents, job_table, measures, output
from dalston.cli.app import App
from dalston.cli.exits import ExitCode, describe, exit_code_of, usage
from dalston.errors import DalstonError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dalston.client import Client
    from dalston.events import Reconnecting
    from dalston.records import Job

app = App(help="List, show, cancel, retry and watch batch jobs.")

_PAGE = 100


class Status(StrEnum):
    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    canceled = "canceled"


class Kind(StrEnum):
    enhance = "enhance"
    upload = "upload"


Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the job, such as job_0190...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON as in the REST API.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option("--status", help="Only jobs with this status.")] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only jobs of this kind.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Only jobs of this session.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of jobs.")] = 50,
    all_: Annotated[bool, typer.Option("--all", help="List all jobs, regardless of --limit.")] = False,
    json: Json = False,
) -> None:
    """List batch jobs, newest first.

    A pipe receives one line of tab-separated fields per job: `dalston jobs list | cut -f1` prints the ids.
    """
    filters = {"status": status and str(status), "kind": kind and str(kind), "session_id": session}
    with connection.connect(ctx) as client:
        found = _Jobs(client, filters, None if all_ else limit)
        if json:
            output.print_json({"jobs": list(found), "next_cursor": found.next_cursor})
            return
        output.print_table(job_table.COLUMNS, map(job_table.row, found))
    if found.next_cursor:
        output.note("there are more jobs: use --all or --limit to list them")
    elif found.count == 0:
        output.note("no jobs match" if any(filters.values()) else "there are no jobs")


@app.command()
def show(ctx: typer.Context, job_id: Id, json: Json = False) -> None:
    """Show a batch job."""
    _check_id(job_id)
    with connection.connect(ctx) as client:
        job = client.jobs.get(job_id)
    print_job(job, json=json)


@app.command()
def cancel(
    ctx: typer.Context,
    job_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of the jobs.", show_default=False)],
    json: Json = False,
) -> None:
    """Cancel batch jobs: queued ones at once, running ones within seconds.

    What they have transcribed is removed. Jobs that have ended stay as they are. If one job cannot be canceled, the
    others still are, and the exit code is that of the first failure.
    """
    job_ids = list(dict.fromkeys(job_ids))
    for job_id in job_ids:
        _check_id(job_id)
    failure: DalstonError | None = None
    with connection.connect(ctx) as client:
        for job_id in job_ids:
            try:
                _print_canceled(client.jobs.cancel(job_id), json=json)
            except DalstonError as error:
                output.note(f"error: {job_id}: {describe(error)}")
                failure = failure or error
                if exit_code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # The other jobs would fail in the same way.
    if failure is not None:
        raise typer.Exit(exit_code_of(failure))


@app.command()
def retry(
    ctx: typer.Context,
    job_id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the new job has ended.")] = False,
    json: Json = False,
) -> None:
    """Create a job like one that has ended."""
    _check_id(job_id)
    with connection.connect(ctx) as client:
        finish(client, client.jobs.retry(job_id), wait=wait, json=json)


@app.command()
def watch(ctx: typer.Context, job_id: Id, json: Json = False) -> None:
    """Watch a batch job until it has ended.

    The exit code is 1 if it fails or is canceled.
    """
    _check_id(job_id)
    with connection.connect(ctx) as client:
        job = follow(client, job_id, json=json)
    raise typer.Exit(_exit_code(job))


def finish(client: Client, job: Job, *, wait: bool, json: bool) -> None:
    """Prints a new job, after its end if `wait`; exits with 1 if it has failed or was canceled by then."""
    if not wait:
        print_job(job, json=json)
        return
    output.note(f"created {job.id}")
    raise typer.Exit(_exit_code(follow(client, job.id, json=json)))


def follow(client: Client, job_id: str, *, json: bool) -> Job:
    """Prints a line for each change of a job until it has ended; returns it as it ended."""
    last: Job | None = None
    for job in client.jobs.watch(job_id, on_reconnect=_note_reconnecting):
        if json:
            output.print_json_line(job)
        elif last is None or job_table.state(job) != job_table.state(last):
            output.print_line(job_table.state(job))
        last = job
    assert last is not None  # noqa: S101 - a watch begins with a state
    return last


def print_job(job: Job, *, json: bool) -> None:
    """Prints the fields of a job."""
    if json:
        output.print_json(job)
        return
    fields = [(name, _text(name, value)) for name, value in documents.document(job).items()]
    output.print_fields([*fields, ("state", job_table.state(job))])


class _Jobs:
    """Jobs of a list, page by page."""

    def __init__(self, client: Client, filters: dict[str, Any], limit: int | None) -> None:
        self._client = client
        self._filters = filters
        self._left = limit
        self.next_cursor: str | None = None
        self.count = 0

    def __iter__(self) -> Iterator[Job]:
        while self._left is None or self._left > 0:
            size = _PAGE if self._left is None else min(_PAGE, self._left)
            page = self._client.jobs.page(**self._filters, limit=size, cursor=self.next_cursor)
            self.next_cursor = page.next_cursor
            self.count += len(page.jobs)
            if self._left is not None:
                self._left -= len(page.jobs)
            yield from page.jobs
            if page.next_cursor is None:
                return


def _print_canceled(job: Job, *, json: bool) -> None:
    if json:
        output.print_json_line(job)
    elif job.status.value == "running":
        output.print_line(f"canceling {job.id}")
    elif job.status.value == "canceled":
        output.print_line(f"canceled {job.id}")
    else:
        output.print_line(f"{job.id} has already ended: {job.status.value}")


def _exit_code(job: Job) -> ExitCode:
    return ExitCode.OK if job.status.value == "completed" else ExitCode.FAILED


def _text(name: str, value: Any) -> str:
    if output.is_terminal(sys.stdout):
        if name.endswith("_at"):
            return f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S %z}"
        if name.endswith("_seconds"):
            return measures.length(value)
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _note_reconnecting(event: Reconnecting) -> None:
    output.note(f"reconnecting in {event.delay:.1f} s: {event.reason}")


def _check_id(job_id: str) -> None:
    if re.fullmatch("job_[0-9a-f]{32}", job_id) is None:
        raise usage(f"{job_id!r} is not a job id, which is job_ followed by 32 hexadecimal digits")
