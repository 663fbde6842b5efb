"""`dalston sessions`: the record of past and running sessions."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dalston.cli import connection, documents, measures, operator_commands, output, safe_text, session_table
from dalston.cli.app import App
from dalston.cli.exits import ExitCode, code_of, sentence_of, usage
from dalston.cli.format import Format
from dalston.cli.target import target, write
from dalston.errors import DalstonError

if TYPE_CHECKING:
    from dalston.client import Client
    from dalston.events import Reconnecting
    from dalston.records import SessionChange, SessionPage

app = App(help="List, read, download, end and delete sessions.")

_PAGE = 100


class Status(StrEnum):
    active = "active"
    completed = "completed"
    error = "error"
    interrupted = "interrupted"


Id = Annotated[str, typer.Argument(metavar="ID", help="The session, such as sess_0190...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, in the names of the REST API.")]
Linked = Annotated[bool, typer.Option("--linked", help="Joined with the sessions that it continues.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Where to write: a file, a folder, or - for standard output."),
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
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on after the page that named this cursor.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them, whatever --limit says.")] = False,
    json: Json = False,
) -> None:
    """Lists sessions, newest first.

    Piped, each is a line of fields with tabs between: `dalston sessions list | cut -f1` gives the ids.
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

        output.say_table(session_table.COLUMNS, rows())
    page = last[0]
    if page.next_cursor:
        total = page.total if page.total_is_exact else f"more than {page.total}"
        output.note(f"there are more, of {total} in all: --all, or --cursor {page.next_cursor}")
    elif page.total == 0:
        output.note("there are no such sessions" if any(filters.values()) else "there are no sessions yet")


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
    output.say_fields((name, _text(name, getattr(session, name))) for name in documents.document(session))
    if said and output.is_terminal(sys.stdout):
        output.say()
    for each in said or ():
        output.say(f"{each.start:9.2f} {each.end:9.2f}  {each.text}")


@app.command()
def delete(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The sessions.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Deletes sessions with their audio and transcripts, for good.

    It asks before. One that fails does not keep the others; the exit code is the first failure's.
    """
    session_ids = list(dict.fromkeys(session_ids))
    for session_id in session_ids:
        _check_id(session_id)
    if not yes and not _is_agreed(session_ids):
        output.note("nothing was deleted")
        raise typer.Exit(ExitCode.FAILED)

    def delete(client: Client, session_id: str) -> None:
        client.sessions.delete(session_id)
        if json:
            output.say_json_line({"session_id": session_id, "deleted": True})
        else:
            output.say(f"deleted {session_id}")

    _for_each(ctx, session_ids, delete)


@app.command()
def end(
    ctx: typer.Context,
    session_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The sessions.", show_default=False)],
    json: Json = False,
) -> None:
    """Ends live sessions, whichever server runs them.

    What was received is transcribed and stored, and the client is told that its session was ended. Nothing happens to a
    session that has ended. One that fails does not keep the others; the exit code is the first failure's.
    """
    session_ids = list(dict.fromkeys(session_ids))
    for session_id in session_ids:
        _check_id(session_id)

    def end(client: Client, session_id: str) -> None:
        session = client.sessions.end(session_id)
        if json:
            output.say_json_line(session)
        elif session.status == "active":
            output.say(f"ending {session_id}")
        else:
            output.say(f"{session_id} has ended already: {session.status}")

    _for_each(ctx, session_ids, end)


@app.command()
def watch(ctx: typer.Context, status: StatusFilter = None, json: Json = False) -> None:
    """Shows sessions while they change, until Ctrl-C.

    On a terminal they are a table, else each change is a line.
    """
    with connection.connect(ctx) as client:
        changes = client.sessions.watch(status=str(status) if status else None, on_reconnect=_say_reconnecting)
        if json or not output.is_terminal(sys.stdout):
            for change in changes:
                _say_change(change, json=json)
        else:
            session_table.show(changes)


@app.command()
def export(
    ctx: typer.Context,
    session_id: Id,
    format_: Annotated[Format, typer.Option("--format", "-f", "--output-format", help="What to write.")] = Format.text,
    linked: Linked = False,
    max_line_length: Annotated[
        int | None, typer.Option(metavar="N", help="Longest line of a caption, in characters.", show_default=False)
    ] = None,
    max_lines: Annotated[
        int | None, typer.Option(metavar="N", help="Most lines of a caption.", show_default=False)
    ] = None,
    to: Output = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes the stored transcript as text or captions.

    It goes to standard output, or to a file.
    """
    _check_id(session_id)
    path = target(to, f"{session_id}.{format_.extension}", force=force)
    with connection.connect(ctx) as client:
        content = client.sessions.export(
            session_id, format_.extension, linked=linked, max_line_length=max_line_length, max_lines=max_lines
        )
    write(path, content)


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
        path = target(to or Path(f"{session_id}.json"), f"{session_id}.json", force=force)
        with connection.connect(ctx) as client:
            content = client.sessions.export(session_id, "json", linked=linked)
        write(path, content)
    if audio or not transcript:
        path = target(to or Path(f"{session_id}.wav"), f"{session_id}.wav", force=force)
        with connection.connect(ctx) as client:
            _download_audio(client, session_id, path, linked=linked)


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without losing anything.")] = False,
) -> None:
    """Compares what is stored in Postgres and S3.

    For operators: it runs where the server is installed, with the server's DALSTON_DATABASE_URL and DALSTON_S3_*
    variables. The exit code is 1 if something disagrees, and 2 if it could not be compared.
    """
    code = operator_commands.run("persistence.verify", ["--repair"] if repair else [])
    raise typer.Exit(code)


def _for_each(ctx: typer.Context, session_ids: Sequence[str], act: Callable[[Client, str], None]) -> None:
    """Acts on each session; leaves with the code of the first failure, when all have had their turn."""
    failure: DalstonError | None = None
    with connection.connect(ctx) as client:
        for session_id in session_ids:
            try:
                act(client, session_id)
            except DalstonError as error:
                output.note(f"error: {session_id}: {sentence_of(error)}")
                failure = failure or error
                if code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # It would be the same with the others.
    if failure is not None:
        raise typer.Exit(code_of(failure))


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
    pagination: dict[str, Any] = {"total": last.total, "total_is_exact": last.total_is_exact} if last else {}
    if last and last.next_cursor:
        pagination["next_cursor"] = last.next_cursor
    sys.stdout.write(f'\n], "pagination": {documents.dumps(pagination)}}}\n')


def _text(name: str, value: Any) -> str:
    """For people in their own zone and units, for programs as in JSON."""
    if output.is_terminal(sys.stdout):
        if isinstance(value, datetime):
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S %z}"
        if name.endswith("_seconds"):
            return measures.length(value)
    shown = documents.document(value)
    return str(shown).lower() if isinstance(shown, bool) else str(shown)


def _is_agreed(session_ids: Sequence[str]) -> bool:
    """Asks; Ctrl-C is no answer, but the end of the command."""
    if not output.is_terminal(sys.stdin):
        raise usage("there is nobody to ask whether to delete them: --yes does it without asking")
    what = session_ids[0] if len(session_ids) == 1 else f"{len(session_ids)} sessions"
    sys.stderr.write(f"Delete {safe_text.line(what)} with audio and transcript, for good? [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        output.note("")
        raise


def _say_reconnecting(event: Reconnecting) -> None:
    output.note(f"reconnecting in {event.delay:.1f} s: {event.reason}")


def _say_change(change: SessionChange, *, json: bool) -> None:
    if json:
        output.say_json_line({"type": change.type, "session": change.session})
    elif change.session is not None:
        row = session_table.row(change.session) if change.type.value != "deleted" else (change.session.id,)
        sys.stdout.write("\t".join(safe_text.line(cell) for cell in (change.type.value, *row)) + "\n")
        sys.stdout.flush()


def _check_id(session_id: str) -> None:
    """It becomes a part of a file's name."""
    if not re.fullmatch(r"sess_[0-9a-f]{32}", session_id):
        raise usage(f"{session_id!r} is no session id, which is sess_ and 32 hexadecimal digits")


def _download_audio(client: Client, session_id: str, path: Path | None, *, linked: bool) -> None:
    if path is None:
        if output.is_terminal(sys.stdout):
            raise usage("audio does not go to a terminal: name a file with -o, or a pipe")
        for piece in client.sessions.audio(session_id, linked=linked):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    from dalston.cli.download import Download

    try:
        with output.transfer(path.name) as progress:
            size = Download(session_id, path, linked=linked, progress=progress).run(client)
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on from here")
        raise
    output.note(f"wrote {path}, {measures.size(size)}")
