"""The terminal view of a file that is transcribed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from dalston.cli import safe_text
from dalston.cli.measures import clock, size
from dalston.cli.screen import live_display

if TYPE_CHECKING:
    from dalston.records import FileProgress, Job

_WAITS = {
    "worker": "no worker is running",
    "retry": "an attempt failed, and another follows",
    "capacity": "live sessions need the machine",
}
"""What a queued job waits for, by its step."""


def state(progress: FileProgress) -> tuple[str, float | None]:
    """What is being done, as text, and the share of it that is done."""
    if progress.job is not None:
        return _state_of_job(progress.job)
    sent, total = progress.sent_bytes, progress.total_bytes
    if not total:
        return f"uploading: {size(sent)}", None
    if sent >= total:
        return "uploaded; the service stores the file", None
    return f"uploading {_percent(sent / total)} of {size(total)}", sent / total


def _state_of_job(job: Job) -> tuple[str, float | None]:
    if job.status.value == "queued":
        return f"queued: {_WAITS.get(job.step) or _position(job.queue_position)}", None
    if job.step == "transcribing":
        left = "" if job.eta_seconds is None else f", {clock(job.eta_seconds)} left"
        return f"transcribing {_percent(job.progress)}{left}", job.progress
    return job.step or job.status.value, None


def _position(before: int | None) -> str:
    if not before:
        return "it is the next"
    return "1 job is before it" if before == 1 else f"{before} jobs are before it"


def _percent(share: float) -> str:
    return f"{int(share * 100)} %"


class FileView:
    """Shown on stdout or stderr, whichever is a terminal; otherwise nowhere.

    Args:
        label: the name of the file if there are several.
    """

    def __init__(self, label: str = "") -> None:
        self._label = f"{safe_text.line(label)}: " if label else ""
        self._progress: FileProgress | None = None
        self._bar: Any = None
        self._display, console = live_display(self._render)
        if console is not None:
            from rich.progress_bar import ProgressBar

            self._bar = ProgressBar(total=1.0, width=30)

    def show(self, progress: FileProgress) -> None:
        """Shows the progress. May be called on any thread."""
        self._progress = progress

    def _render(self) -> Any:
        from rich.columns import Columns
        from rich.text import Text

        if self._progress is None:
            return Text("")
        words, share = state(self._progress)
        text = Text(f"{self._label}{words}", no_wrap=True, overflow="ellipsis")
        if share is None:
            return text
        self._bar.update(min(share, 1.0))
        return Columns([self._bar, text])

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress = None
        self._display.__exit__(*error)
