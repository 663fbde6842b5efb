"""The file that a command writes."""

from __future__ import annotations

from pathlib import Path

from dalston.cli import output
from dalston.cli.exits import usage


def target(to: Path | None, name: str, *, force: bool) -> Path | None:
    """Where to write, None for standard output: `to`, which may be a folder for a file of this name, or `-`.

    Raises:
        CommandError: there is a file already and `force` does not say to replace it, or there is no folder for it.
    """
    if to is None or str(to) == "-":
        return None
    path = to / name if to.is_dir() else to
    if path.is_dir():
        raise usage(f"{path} is a folder")
    if path.exists() and not force:
        raise usage(f"{path} is there already: --force replaces it")
    if not path.parent.is_dir():
        raise usage(f"there is no folder {path.parent}")
    return path


def write(path: Path | None, content: str) -> None:
    """Writes a document, as a whole or not at all."""
    if path is None:
        output.say_text(content)
        return
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(content, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    output.note(f"wrote {path}")
