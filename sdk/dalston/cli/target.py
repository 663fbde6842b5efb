"""The output file of a command."""

from __future__ import annotations

from pathlib import Path

from dalston.cli import output
from dalston.cli.exits import usage


def target(to: Path | None, name: str, *, force: bool) -> Path | None:
    """The path of the output file; None for standard output.

    Args:
        to: a file, a folder for a file called `name`, or `-` for standard output.
        force: whether to overwrite an existing file.

    Raises:
        CommandError: the file exists and `force` is not set, or its folder does not exist.
    """
    if to is None or str(to) == "-":
        return None
    path = to / name if to.is_dir() else to
    if path.is_dir():
        raise usage(f"{path} is a folder")
    if path.exists() and not force:
        raise usage(f"{path} already exists: use --force to overwrite it")
    if not path.parent.is_dir():
        raise usage(f"the folder {path.parent} does not exist")
    return path


def write(path: Path | None, content: str) -> None:
    """Writes a document atomically."""
    if path is None:
        output.print_text(content)
        return
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(content, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    output.note(f"wrote {path}")
