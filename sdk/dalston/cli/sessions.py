"""`dalston sessions`: the record of past and running sessions."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import connection, documents, operator_commands, output, safe_text
from dalston.cli.exits import CommandError, ExitCode, code_of, sentence_of, usage
from dalston.errors import DalstonError

if TYPE_CHECKING:
    from dalston.client import Client
    from dalston.records import Session, SessionChange, SessionPage

app = typer.Typer(
    help="List, read, download and delete recorded sessions.", no_args_is_help=True, rich_markup_mode=None
)

_PAGE = 100
_COUNTED = 10_000
"""The service counts no further."""
_COLUMNS = ("ID", "STATUS", "STARTED", "AUDIO", "STORED", "LANGUAGE", "WORDS", "MODEL", "ERROR")
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Status(StrEnum):
    active = "active"
    completed = "completed"
    error = "error"
    interrupted = "interrupted"


class Format(StrEnum):
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    json = "json"


Id = Annotated[str, typer.Argument(metavar="ID", help="The session, such as sess_0190...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, in the names of the REST API.")]
Linked = Annotated[bool, typer.Option("--linked", help="Joined with the sessions that it continues.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is standard output.")
]
StatusFilter = Annotated[Status | None, typer.Option("--status", help="Only sessions of this status.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    status: StatusFilter = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Started then or later: 2026-05-01T09:30, or 30m, 12h, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Started before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after the page that named this cursor.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")] = False,
    json: Json = False,
) -> None:
    """Lists sessions, newest first.

    Piped, each is a line of fields with tabs between: `dalston sessions list | cut -f1` gives the ids.
    """
    begin, end = _time(since), _time(until)
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
                yield from map(_row, page.sessions)

        output.say_table(_COLUMNS, rows())
    page = last[0]
    if page.next_cursor:
        total = page.total if page.total < _COUNTED else f"{_COUNTED} or more"
        output.note(f"there are more, of {total} in all: --all, or --cursor {page.next_cursor}")


@app.command()
def get(
    ctx: typer.Context,
    session_id: Id,
    utterances: Annotated[bool, typer.Option("--utterances", help="What it has said so far, too.")] = False,
    json: Json = False,
) -> None:
    """Shows one session."""
    with connection.connect(ctx) as client:
        session = client.sessions.get(session_id)
        said = list(client.sessions.utterances(session_id)) if utterances else None
    if json:
        output.say_json(documents.document(session) | ({} if said is None else {"utterances": said}))
        return
    output.say_fields((name, _text(value)) for name, value in documents.document(session).items())
    for each in said or ():
        output.say(f"{each.start:9.2f} {each.end:9.2f}  {each.text}")


@app.command()
def delete(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The sessions.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Deletes sessions with their audio and transcripts, for good.

    It asks before. One that fails does not keep the others; the exit code is the first failure's.
    """
    session_ids = list(dict.fromkeys(session_ids))
    if not yes:
        _ask(session_ids)
    failure: DalstonError | None = None
    with connection.connect(ctx) as client:
        for session_id in session_ids:
            try:
                client.sessions.delete(session_id)
            except DalstonError as error:
                output.note(f"error: {session_id}: {sentence_of(error)}")
                failure = failure or error
                if code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # It would be the same with the others.
                continue
            if json:
                output.say_json_line({"session_id": session_id, "deleted": True})
            else:
                output.say(f"deleted {session_id}")
    if failure is not None:
        raise typer.Exit(code_of(failure))


@app.command()
def watch(ctx: typer.Context, status: StatusFilter = None, json: Json = False) -> None:
    """Shows sessions while they change, until Ctrl-C: a table on a terminal, else a line for each change."""
    with connection.connect(ctx) as client:
        changes = client.sessions.watch(status=str(status) if status else None)
        try:
            if json or not output.is_terminal(sys.stdout):
                for change in changes:
                    _say_change(change, json=json)
            else:
                _show(changes)
        except KeyboardInterrupt:
            return


@app.command()
def export(
    ctx: typer.Context,
    session_id: Id,
    format_: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.txt,
    linked: Linked = False,
    max_line_length: Annotated[
        int | None, typer.Option(help="Longest line of a caption, in characters.", show_default=False)
    ] = None,
    max_lines: Annotated[int | None, typer.Option(help="Most lines of a caption.", show_default=False)] = None,
    to: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes the stored transcript as text or captions, to standard output or a file."""
    _check_free(to, force=force)
    with connection.connect(ctx) as client:
        content = client.sessions.export(
            session_id, str(format_), linked=linked, max_line_length=max_line_length, max_lines=max_lines
        )
    _write(to, content)


@app.command()
def download(
    ctx: typer.Context,
    session_id: Id,
    audio: Annotated[bool, typer.Option("--audio", help="The recording, a WAV file: the default.")] = False,
    transcript: Annotated[bool, typer.Option("--transcript", help="The transcript, a JSON document.")] = False,
    linked: Linked = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; - is standard output. Default: ID.wav, ID.json. Both go to a folder.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Downloads what is stored.

    A download of audio that breaks goes on where it was; after a crash or Ctrl-C, when the same command is given again.
    """
    _check_id(session_id)
    both = audio and transcript
    if both and (to is not None and not to.is_dir()):
        raise usage("--audio and --transcript together need a folder that is there: -o FOLDER")
    if transcript:
        target = _target(to, f"{session_id}.json")
        _check_free(target, force=force)
        with connection.connect(ctx) as client:
            content = client.sessions.export(session_id, "json", linked=linked)
        _write(target, content)
    if audio or not transcript:
        target = _target(to, f"{session_id}.wav")
        _check_free(target, force=force)
        _download_audio(ctx, session_id, target, linked=linked)


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without losing anything.")] = False,
) -> None:
    """Compares what is stored in Postgres and S3. For operators: it runs where the server is installed."""
    code = operator_commands.run("persistence.verify", ["--repair"] if repair else [])
    raise typer.Exit(code)


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
    """One document, written while its pages come: a long list is never in memory as a whole."""
    separator, last = "\n  ", None
    for page in pages:
        if last is None:
            sys.stdout.write('{"sessions": [')
        for session in page.sessions:
            sys.stdout.write(separator + documents.dumps(session))
            separator = ",\n  "
        last = page
    pagination = {"total": last.total, "next_cursor": last.next_cursor} if last else {}
    pagination = {name: value for name, value in pagination.items() if value is not None}
    sys.stdout.write(f'\n], "pagination": {documents.dumps(pagination)}}}\n')


def _time(text: str | None) -> datetime | None:
    """A point in time as a person writes it; without a zone it is local.

    Raises:
        CommandError: it is none.
    """
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return datetime.now().astimezone() - timedelta(seconds=int(age[1]) * _AGES[age[2]])
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise usage(f"{text!r} is no time: write 2026-05-01, 2026-05-01T09:30 or 30m, 12h, 7d") from None


def _row(session: Session) -> tuple[str, ...]:
    stored = [name for name, uri in (("audio", session.audio_uri), ("transcript", session.transcript_uri)) if uri]
    return (
        session.id,
        session.status.value,
        _local(session.started_at),
        f"{session.audio_duration_seconds:.1f} s",
        ",".join(stored) or "-",
        session.language,
        str(session.word_count),
        session.model,
        session.error or "",
    )


def _local(time: datetime | None) -> str:
    """For people in their own zone, for programs with it."""
    if time is None:
        return ""
    local = time.astimezone()
    if not output.is_terminal(sys.stdout):
        return local.isoformat(timespec="seconds")
    return f"{local:%m-%d %H:%M}" if local.year == datetime.now().astimezone().year else f"{local:%Y-%m-%d}"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ask(session_ids: Sequence[str]) -> None:
    if not sys.stdin.isatty():
        raise usage("there is nobody to ask whether to delete them: --yes does it without asking")
    what = session_ids[0] if len(session_ids) == 1 else f"{len(session_ids)} sessions"
    if not typer.confirm(f"Delete {safe_text.line(what)} with audio and transcript, for good?", err=True):
        raise CommandError("nothing was deleted")


def _say_change(change: SessionChange, *, json: bool) -> None:
    if json:
        output.say_json_line({"type": change.type, "session": change.session})
    elif change.session is not None:
        row = _row(change.session) if change.type.value != "deleted" else (change.session.id,)
        sys.stdout.write("\t".join(safe_text.line(cell) for cell in (change.type.value, *row)) + "\n")
        sys.stdout.flush()


def _show(changes: Iterator[SessionChange]) -> None:
    """A table of the newest sessions, as many as fit."""
    from rich.live import Live

    screen = output.console(sys.stdout)
    sessions: dict[str, Session] = {}
    with Live(console=screen, auto_refresh=False, redirect_stderr=output.is_terminal(sys.stderr)) as live:
        is_complete = False
        for change in changes:
            if change.type.value == "snapshot" and is_complete:
                sessions.clear()  # The watch was away for long, and begins anew.
                is_complete = False
            if change.type.value == "ready":
                is_complete = True
            elif change.session is not None:
                _apply(sessions, change)
            if is_complete:
                newest = sorted(sessions.values(), key=lambda session: session.id, reverse=True)
                rows = [_row(session) for session in newest[: max(1, screen.height - 2)]]
                live.update(output.table(_COLUMNS, rows, screen.width), refresh=True)


def _apply(sessions: dict[str, Session], change: SessionChange) -> None:
    assert change.session is not None  # noqa: S101 - for the type checker
    if change.type.value == "deleted":
        sessions.pop(change.session.id, None)
    else:
        sessions[change.session.id] = change.session
    while len(sessions) > _COUNTED:
        del sessions[min(sessions)]


def _check_id(session_id: str) -> None:
    """It becomes a part of a file's name."""
    if not re.fullmatch(r"sess_[0-9a-f]{32}", session_id):
        raise usage(f"{session_id!r} is no session id, which is sess_ and 32 hexadecimal digits")


def _target(to: Path | None, name: str) -> Path:
    if to is None:
        return Path(name)
    return to / name if to.is_dir() else to


def _check_free(target: Path | None, *, force: bool) -> None:
    if target is not None and str(target) != "-" and target.exists() and not force:
        raise usage(f"{target} is there already: --force replaces it")


def _write(target: Path | None, content: str) -> None:
    if target is None or str(target) == "-":
        output.say_text(content)
        return
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.write_text(content, encoding="utf-8", newline="")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    output.note(f"wrote {target}")


def _download_audio(ctx: typer.Context, session_id: str, target: Path, *, linked: bool) -> None:
    if str(target) == "-":
        if output.is_terminal(sys.stdout):
            raise usage("audio does not go to a terminal: name a file with -o, or a pipe")
        with connection.connect(ctx) as client:
            for piece in client.sessions.audio(session_id, linked=linked):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    from dalston import background
    from dalston.cli.download import Download

    calls = connection.calls(ctx)
    try:
        with output.transfer(target.name) as progress:
            size = background.run(Download(session_id, target, linked=linked, progress=progress).run(calls))
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on from here")
        raise
    finally:
        background.run(calls.close())
    output.note(f"wrote {target}, {size} bytes")
