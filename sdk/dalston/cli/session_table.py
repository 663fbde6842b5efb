"""Sessions as rows and as a live table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from dalston.cli import measures, output

if TYPE_CHECKING:
    from dalston.records import Session, SessionChange

COLUMNS = ("ID", "STATUS", "STARTED", "AUDIO", "STORED", "LANGUAGE", "WORDS", "MODEL", "ERROR")
_MOST_WATCHED = 10_000
"""Sessions that a watch keeps in memory: more than a screen shows."""


def row(session: Session) -> tuple[str, ...]:
    """The cells under `COLUMNS`: lengths and times for people on a terminal, in fixed formats for programs."""
    stored = [name for name, uri in (("audio", session.audio_uri), ("transcript", session.transcript_uri)) if uri]
    seconds = session.audio_duration_seconds
    return (
        session.id,
        session.status.value,
        local_time(session.started_at),
        measures.length(seconds) if output.is_terminal(sys.stdout) else f"{seconds:.1f} s",
        ",".join(stored) or "-",
        session.language,
        str(session.word_count),
        session.model,
        session.error or "",
    )


def show(changes: Iterator[SessionChange]) -> None:
    """Shows a table of the newest sessions that fit, until the changes end."""
    from rich.live import Live

    screen = output.console(sys.stdout)
    sessions: dict[str, Session] = {}
    with Live(console=screen, auto_refresh=False, redirect_stderr=output.is_terminal(sys.stderr)) as live:
        is_complete = False
        for change in changes:
            if change.type.value == "snapshot" and is_complete:
                sessions.clear()  # After a long outage the watch starts again with a snapshot.
                is_complete = False
            if change.type.value == "ready":
                is_complete = True
            elif change.session is not None:
                _apply(sessions, change)
            if is_complete:
                newest = sorted(sessions.values(), key=lambda session: session.id, reverse=True)
                rows = [row(session) for session in newest[: max(1, screen.height - 2)]]
                live.update(output.table(COLUMNS, rows, screen.width), refresh=True)


def _apply(sessions: dict[str, Session], change: SessionChange) -> None:
    assert change.session is not None  # noqa: S101 - for the type checker
    if change.type.value == "deleted":
        sessions.pop(change.session.id, None)
    else:
        sessions[change.session.id] = change.session
    while len(sessions) > _MOST_WATCHED:
        del sessions[min(sessions)]


def local_time(time: datetime | None) -> str:
    """Local time: short on a terminal, with the zone for programs."""
    if time is None:
        return ""
    local = time.astimezone()
    if not output.is_terminal(sys.stdout):
        return local.isoformat(timespec="seconds")
    return f"{local:%m-%d %H:%M}" if local.year == datetime.now().astimezone().year else f"{local:%Y-%m-%d}"
