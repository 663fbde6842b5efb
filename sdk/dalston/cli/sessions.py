"""`dalston sessions`: the records of past and running sessions."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import (
    connection,
    documents,
    follow_view,
    job_table,
    jobs,
    measures,
    operator_commands,
    output,
    safe_text,
    session_table,
    version_table,
)
from dalston.cli.app import App
from dalston.cli.exits import ExitCode, describe, exit_code_of, usage
from dalston.cli.format import Format
from dalston.cli.target import target, write
from dalston.errors import DalstonError

if TYPE_CHECKING:
    from dalston.client import Client
    from dalston.events import Reconnecting
    from dalston.records import SessionChange, SessionPage

app = App(help="List, read, download, enhance, end and delete sessions.")

_PAGE = 100


class Status(StrEnum):
    active = "active"
    completed = "completed"
    error = "error"
    interrupted = "interrupted"


Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the session, such as sess_0190...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON as in the REST API.")]
Linked = Annotated[bool, typer.Option("--linked", help="Join it with the sessions that it continues.")]
Version = Annotated[
    int | None,
    typer.Option(
        "--version",
        metavar="N",
        min=1,
        help="Version of the transcript; 1 is the live one. Default: the current one.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Output file or folder, or - for standard output."),
]
StatusFilter = Annotated[Status | None, typer.Option("--status", help="Only sessions with this status.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: StatusFilter = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Started at or after this time: 2026-05-01T09:30, or 30m, 12h, 7d ago."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Started before this time.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of sessions.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Continue after the page that returned this cursor.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List all sessions, regardless of --limit.")] = False,
    json: Json = False,
) -> None:
    """List sessions, newest first.

    A pipe receives one line of tab-separated fields per session: `dalston sessions list | cut -f1` prints the ids.
    """
    begin, end = measures.parse_time(since), measures.parse_time(until)
    with connection.connect(ctx) as client:
        filters = {"status": str(status) if status else None, "since": begin, "until": end}
        pages = _pages(client, filters, None if all_ else limit, cursor)
        if json:
            _write_list(pages)
            return
        last: list[SessionPage] = []

        def rows() -> Iterator[tuple[str, ...]]:
            for page in pages:
                last[:] = [page]
                yield from map(session_table.row, page.sessions)

        output.print_table(session_table.COLUMNS, rows())
    page = last[0]
    if page.next_cursor:
        total = page.total if page.total_is_exact else f"more than {page.total}"
        output.note(f"{total} sessions in total: use --all or --cursor {page.next_cursor} to list more")
    elif page.total == 0:
        output.note("no sessions match" if any(filters.values()) else "there are no sessions")


@app.command()
def get(
    ctx: typer.Context,
    session_id: Id,
    utterances: Annotated[bool, typer.Option("--utterances", help="Include the utterances so far.")] = False,
    json: Json = False,
) -> None:
    """Show a session."""
    with connection.connect(ctx) as client:
        session = client.sessions.get(session_id)
        finals = list(client.sessions.utterances(session_id)) if utterances else None
        job_id = session.enhancement_job_id if output.is_terminal(sys.stdout) and not json else None
        job = client.jobs.get(job_id) if job_id is not None else None
    if json:
        output.print_json(documents.document(session) | ({} if finals is None else {"utterances": finals}))
        return
    output.print_fields((name, _text(name, getattr(session, name))) for name in documents.document(session))
    if job is not None:
        output.print_fields([("enhancement", job_table.state(job))])
    if finals and output.is_terminal(sys.stdout):
        output.print_line()
    for each in finals or ():
        output.print_line(f"{each.start:9.2f} {each.end:9.2f}  {each.text}")


@app.command()
def transcripts(
    ctx: typer.Context,
    session_id: Id,
    use: Annotated[
        int | None,
        typer.Option("--use", metavar="N", min=1, help="Make version N the current one.", show_default=False),
    ] = None,
    delete: Annotated[
        int | None,
        typer.Option("--delete", metavar="N", min=1, help="Permanently delete version N.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """List, choose or delete versions of a transcript.

    Version 1 is the live transcript, which is deleted with its session only. The current version is the one that other
    commands read by default.
    """
    _check_id(session_id)
    if use is not None and delete is not None:
        raise usage("--use and --delete exclude each other")
    if delete is not None and not yes and not _confirm(f"version {delete} of the transcript of {session_id}"):
        output.note("nothing was deleted")
        raise typer.Exit(ExitCode.FAILED)
    with connection.connect(ctx) as client:
        if use is not None:
            client.sessions.set_current_transcript(session_id, use)
        if delete is not None:
            client.sessions.delete_transcript(session_id, delete)
        versions = client.sessions.transcripts(session_id)
    if json:
        output.print_json({"transcripts": versions})
        return
    output.print_table(version_table.COLUMNS, map(version_table.row, versions))


@app.command()
def delete(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of the sessions.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """Permanently delete sessions with audio and transcript.

    The command asks for confirmation. If one session cannot be deleted, the others still are, and the exit code is that
    of the first failure.
    """
    session_ids = list(dict.fromkeys(session_ids))
    for session_id in session_ids:
        _check_id(session_id)
    what = session_ids[0] if len(session_ids) == 1 else f"{len(session_ids)} sessions"
    if not yes and not _confirm(f"{what} with audio and transcript"):
        output.note("nothing was deleted")
        raise typer.Exit(ExitCode.FAILED)

    def delete(client: Client, session_id: str) -> None:
        client.sessions.delete(session_id)
        if json:
            output.print_json_line({"session_id": session_id, "deleted": True})
        else:
            output.print_line(f"deleted {session_id}")

    _for_each(ctx, session_ids, delete)


@app.command()
def end(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID", help="Ids of the sessions.", show_default=False)],
    json: Json = False,
) -> None:
    """End live sessions on whichever servers run them.

    The audio received so far is transcribed and stored, and the client is notified that its session was ended. Sessions
    that have already ended stay as they are. If one session cannot be ended, the others still are, and the exit code is
    that of the first failure.
    """
    session_ids = list(dict.fromkeys(session_ids))
    for session_id in session_ids:
        _check_id(session_id)

    def end(client: Client, session_id: str) -> None:
        session = client.sessions.end(session_id)
        if json:
            output.print_json_line(session)
        elif session.status == "active":
            output.print_line(f"ending {session_id}")
        else:
            output.print_line(f"{session_id} has already ended: {session.status}")

    _for_each(ctx, session_ids, end)


@app.command()
def enhance(
    ctx: typer.Context,
    session_id: Id,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model to use.", show_default="accurate")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", "-l", metavar="CODE", help="Language code such as en, or auto.", show_default="as the session"
        ),
    ] = None,
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(
            "--vocabulary", metavar="TERMS", help="Expected names and terms, separated by commas. Repeatable."
        ),
    ] = None,
    linked: Annotated[
        bool | None,
        typer.Option(
            "--linked/--no-linked",
            help="Transcribe it joined with the sessions that it continues.",
            show_default="if it continues any",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    json: Json = False,
) -> None:
    """Transcribe the stored audio again, more accurately.

    A batch job makes a new version of the transcript; the live one stays. With --wait the exit code is 1 if the job
    fails or is canceled; Ctrl-C leaves it running.
    """
    _check_id(session_id)
    terms = [term.strip() for item in vocabulary or () for term in item.split(",") if term.strip()]
    with connection.connect(ctx) as client:
        job = client.sessions.enhance(session_id, model=model, language=language, vocabulary=terms, linked=linked)
        jobs.finish(client, job, wait=wait, json=json)


@app.command()
def watch(ctx: typer.Context, status: StatusFilter = None, json: Json = False) -> None:
    """Watch sessions change, until Ctrl-C.

    A terminal shows a table; a pipe receives one line per change.
    """
    with connection.connect(ctx) as client:
        changes = client.sessions.watch(status=str(status) if status else None, on_reconnect=_note_reconnecting)
        if json or not output.is_terminal(sys.stdout):
            for change in changes:
                _print_change(change, json=json)
        else:
            session_table.show(changes)


@app.command()
def follow(
    ctx: typer.Context,
    session_id: Id,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="Skip the first N utterances.")] = 0,
    json: Json = False,
) -> None:
    """Follow the text of a session until it has ended.

    Its utterances so far come first. A terminal also shows the utterance that is being spoken.
    """
    _check_id(session_id)
    with connection.connect(ctx) as client:
        # A pipe has no use for text that changes.
        partials = json or output.is_terminal(sys.stdout) or output.is_terminal(sys.stderr)
        spoken = client.sessions.follow(session_id, offset=offset, partials=partials, on_reconnect=_note_reconnecting)
        if json:
            follow_view.print_json(spoken)
        else:
            follow_view.show(spoken)


@app.command()
def export(
    ctx: typer.Context,
    session_id: Id,
    format_: Annotated[
        Format, typer.Option("--format", "-f", "--output-format", help="Format of the transcript.")
    ] = Format.text,
    linked: Linked = False,
    version: Version = None,
    max_line_length: Annotated[
        int | None,
        typer.Option(metavar="N", help="Maximum length of a caption line in characters.", show_default=False),
    ] = None,
    max_lines: Annotated[
        int | None, typer.Option(metavar="N", help="Maximum number of lines per caption.", show_default=False)
    ] = None,
    to: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Export the stored transcript as text, captions or JSON.

    It is written to standard output or to a file.
    """
    _check_id(session_id)
    path = target(to, f"{session_id}.{format_.extension}", force=force)
    with connection.connect(ctx) as client:
        content = client.sessions.export(
            session_id,
            format_.extension,
            version=version,
            linked=linked,
            max_line_length=max_line_length,
            max_lines=max_lines,
        )
    write(path, content)


@app.command()
def download(
    ctx: typer.Context,
    session_id: Id,
    audio: Annotated[bool, typer.Option("--audio", help="Download the recording, a WAV file (default).")] = False,
    transcript: Annotated[bool, typer.Option("--transcript", help="Download the transcript, a JSON document.")] = False,
    linked: Linked = False,
    version: Version = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output file or folder, or - for standard output. Default: ID.wav or ID.json.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Download the stored recording or transcript.

    An interrupted download of audio continues where it stopped; after a crash or Ctrl-C, run the same command again.
    """
    _check_id(session_id)
    both = audio and transcript
    if both and (to is not None and not to.is_dir()):
        raise usage("--audio and --transcript together require an existing folder: -o FOLDER")
    if version is not None and not transcript:
        raise usage("--version is that of the transcript: use it with --transcript")
    if transcript:
        path = target(to or Path(f"{session_id}.json"), f"{session_id}.json", force=force)
        with connection.connect(ctx) as client:
            content = client.sessions.export(session_id, "json", version=version, linked=linked)
        write(path, content)
    if audio or not transcript:
        path = target(to or Path(f"{session_id}.wav"), f"{session_id}.wav", force=force)
        with connection.connect(ctx) as client:
            _download_audio(client, session_id, path, linked=linked)


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired without loss.")] = False,
) -> None:
    """Verify that Postgres and S3 agree.

    For operators: run this where the server is installed, with its DALSTON_DATABASE_URL and DALSTON_S3_* variables. The
    exit code is 1 if they disagree, and 2 if they could not be compared.
    """
    code = operator_commands.run("persistence.verify", ["--repair"] if repair else [])
    raise typer.Exit(code)


def _for_each(ctx: typer.Context, session_ids: Sequence[str], act: Callable[[Client, str], None]) -> None:
    """Calls `act` for each session, and exits with the code of the first failure after the last one."""
    failure: DalstonError | None = None
    with connection.connect(ctx) as client:
        for session_id in session_ids:
            try:
                act(client, session_id)
            except DalstonError as error:
                output.note(f"error: {session_id}: {describe(error)}")
                failure = failure or error
                if exit_code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # The other sessions would fail in the same way.
    if failure is not None:
        raise typer.Exit(exit_code_of(failure))


def _pages(client: Client, filters: dict[str, Any], limit: int | None, cursor: str | None) -> Iterator[SessionPage]:
    left = limit
    while True:
        page = client.sessions.page(**filters, limit=_PAGE if left is None else min(_PAGE, left), cursor=cursor)
        yield page
        cursor = page.next_cursor
        left = None if left is None else left - len(page.sessions)
        if cursor is None or (left is not None and left <= 0):
            return


def _write_list(pages: Iterator[SessionPage]) -> None:
    """Writes one JSON document page by page, so that a long list is never completely in memory."""
    separator, last = "\n  ", None
    for page in pages:
        if last is None:
            sys.stdout.write('{"sessions": [')
        for session in page.sessions:
            sys.stdout.write(separator + documents.dumps(session))
            separator = ",\n  "
        last = page
    pagination: dict[str, Any] = {"total": last.total, "total_is_exact": last.total_is_exact} if last else {}
    if last and last.next_cursor:
        pagination["next_cursor"] = last.next_cursor
    sys.stdout.write(f'\n], "pagination": {documents.dumps(pagination)}}}\n')


def _text(name: str, value: Any) -> str:
    """Formats a value: local time and units for people, as in JSON for programs."""
    if output.is_terminal(sys.stdout):
        if isinstance(value, datetime):
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S %z}"
        if name.endswith("_seconds"):
            return measures.length(value)
    shown = documents.document(value)
    return str(shown).lower() if isinstance(shown, bool) else str(shown)


def _confirm(what: str) -> bool:
    """Asks for confirmation; Ctrl-C aborts the command."""
    if not output.is_terminal(sys.stdin):
        raise usage("standard input is not a terminal, so deletion cannot be confirmed: use --yes")
    sys.stderr.write(f"Permanently delete {safe_text.line(what)}? [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        output.note("")
        raise


def _note_reconnecting(event: Reconnecting) -> None:
    output.note(f"reconnecting in {event.delay:.1f} s: {event.reason}")


def _print_change(change: SessionChange, *, json: bool) -> None:
    if json:
        output.print_json_line({"type": change.type, "session": change.session})
    elif change.session is not None:
        row = session_table.row(change.session) if change.type.value != "deleted" else (change.session.id,)
        sys.stdout.write("\t".join(safe_text.line(cell) for cell in (change.type.value, *row)) + "\n")
        sys.stdout.flush()


def _check_id(session_id: str) -> None:
    """Rejects a malformed id, because ids become part of file names."""
    if not re.fullmatch(r"sess_[0-9a-f]{32}", session_id):
        raise usage(f"{session_id!r} is not a session id, which is sess_ followed by 32 hexadecimal digits")


def _download_audio(client: Client, session_id: str, path: Path | None, *, linked: bool) -> None:
    if path is None:
        if output.is_terminal(sys.stdout):
            raise usage("refusing to write audio to a terminal: use -o FILE or a pipe")
        for piece in client.sessions.audio(session_id, linked=linked):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    from dalston.cli.download import Download

    try:
        with output.transfer(path.name) as progress:
            size = Download(session_id, path, linked=linked, progress=progress).run(client)
    except KeyboardInterrupt:
        output.note("interrupted; run the same command again to continue")
        raise
    output.note(f"wrote {path}, {measures.size(size)}")
