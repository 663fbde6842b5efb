"""Writes transcripts to standard output or files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dalston.cli import documents, output, safe_text
from dalston.cli.exits import usage
from dalston.cli.format import Format
from dalston.cli.target import target

if TYPE_CHECKING:
    from dalston.cli.captions import Captions
    from dalston.events import Event
    from dalston.records import Transcript, Utterance


def targets(files: Sequence[str], to: str | None, extension: str, *, force: bool) -> list[Path | None]:
    """The path of the transcript of each file; None for standard output.

    A folder receives one file for each, named like the audio; for several files it is created if it does not exist.

    Raises:
        CommandError: a file exists and `force` is not set, two transcripts would have the same name, or `to` is not a
            folder.
    """
    if to is None or to == "-":
        return [None] * len(files)
    folder = Path(to)
    is_folder = folder.is_dir() or len(files) > 1 or to.endswith("/")
    if is_folder and folder.exists() and not folder.is_dir():
        raise usage(f"{to} is a file: several transcripts require a folder")
    names = _names(files, extension) if is_folder else [folder.name]
    parent = folder if is_folder else folder.parent
    if is_folder and not folder.exists():
        folder.mkdir(parents=True)
    paths = [target(parent / name, name, force=force) for name in names]
    for file, path in zip(files, paths, strict=True):
        if path is not None and path.exists() and file != "-" and path.samefile(file):
            raise usage(f"{path} is the audio file itself")
    return paths


def _names(files: Sequence[str], extension: str) -> list[str]:
    """Names like the audio: `speech.txt`, or `speech.wav.txt` if there are a `speech.wav` and a `speech.mp3`."""
    paths = [Path("stdin" if file == "-" else file) for file in files]
    stems = [path.stem for path in paths]
    names = [f"{path.stem if stems.count(path.stem) == 1 else path.name}.{extension}" for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise usage(f"two transcripts would be named {name}: transcribe the files into separate folders")
    return names


class Writer:
    """Writes a transcript to standard output, or to a file that appears once it is complete.

    Args:
        json: whether to write every event as a line instead of the format.
        file: the name of the audio file, added to every event if there are several files.
    """

    def __init__(self, format_: Format, path: Path | None = None, *, json: bool = False, file: str | None = None):
        self._format = format_
        self._json = json
        self._path = path
        self._named = {} if file is None else {"file": file}
        self._captions: Captions | None = None
        self._file: TextIO | None = None

    def begin(self) -> None:
        """Opens the output; called before the first event."""
        if self._path is not None:
            self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        if not self._json and self._format in (Format.srt, Format.vtt):
            from dalston.cli.captions import Captions

            self._captions = Captions(is_vtt=self._format is Format.vtt)
            self._write(self._captions.begin())

    def write_event(self, event: Event) -> None:
        """Writes the output for an event immediately."""
        from dalston.events import FinalResult

        if self._json:
            self._write(documents.dumps(documents.event(event) | self._named) + "\n")
        elif not isinstance(event, FinalResult):
            return
        elif self._captions is not None:
            self._write(self._captions.push(event))
        elif self._format.extension == "txt":
            self._write(f"{safe_text.line(event.text)}\n")

    def write_utterance(self, utterance: Utterance) -> None:
        """Writes the output for an utterance of a file immediately."""
        from dalston.events import FinalResult

        self.write_event(
            FinalResult(
                utterance.text,
                utterance.start,
                utterance.end,
                utterance.confidence,
                utterance.language or "",
                utterance.words,
            )
        )

    def end(self, transcript: Transcript, session_ids: Sequence[str]) -> None:
        """Writes the transcript so far; called whether or not the transcription completed."""
        if not self._json and self._format is Format.json and session_ids:
            document = documents.document(transcript) | {"session_ids": session_ids}
            self._write(documents.dumps(document, indent=2) + "\n")

    def close(self, *, is_whole: bool) -> None:
        """Renames the file if the transcript is complete; an incomplete one keeps the name of a part file."""
        if self._file is None or self._path is None:
            return
        self._file.close()
        if is_whole:
            self._part.replace(self._path)
            output.note(f"wrote {self._path}")
        elif self._part.stat().st_size:
            output.note(f"the incomplete transcript is in {self._part}")
        else:
            self._part.unlink()

    @property
    def _part(self) -> Path:
        assert self._path is not None  # noqa: S101 - for the type checker
        return self._path.with_name(f"{self._path.name}.part")

    def _write(self, text: str) -> None:
        stream = self._file or sys.stdout
        stream.write(text)
        stream.flush()
