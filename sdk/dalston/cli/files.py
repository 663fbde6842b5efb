"""Transcribes the files of one command: regular files as batch jobs, others as live streams."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalston.cli import audio_input, output
from dalston.cli.exits import CommandError, ExitCode, describe, exit_code_of
from dalston.cli.file_run import FileRun, FilesUnsupported
from dalston.cli.run import Run
from dalston.cli.transcript_output import Writer
from dalston.errors import DalstonError

if TYPE_CHECKING:
    from dalston.cli.shared_options import SharedOptions
    from dalston.client import Client


class Files:
    """Several files are uploaded one after the other before the first is waited for.

    Args:
        options: the arguments of `Client.transcribe`.
        why_live: the option that requires a live stream; None if regular files are uploaded.
    """

    def __init__(
        self,
        client: Client,
        files: Sequence[str],
        shared: SharedOptions,
        options: dict[str, Any],
        why_live: str | None,
    ) -> None:
        self._client = client
        self._files = files
        self._shared = shared
        self._options = options
        self._why_live = why_live
        self._uploads = why_live is None
        self._runs: dict[int, FileRun] = {}
        """By the number of the file."""
        self._skipped: set[int] = set()
        self._failed = ExitCode.OK

    def transcribe(self, paths: Sequence[Path | None]) -> ExitCode:
        """Writes the transcript of each file. Returns the code of the first failure or of an interruption.

        Raises:
            CommandError, DalstonError, OSError: the only file failed.
            KeyboardInterrupt: the user interrupted it; jobs that exist continue.
        """
        with self._noting_what_is_left():
            if len(self._files) == 1 or not self._uploads or self._for_each(self._submit):
                self._for_each(lambda number: self._transcribe(number, paths[number]))
        return self._failed

    def submit(self) -> ExitCode:
        """Uploads each file and prints the ids of the jobs. Returns the code of the first failure.

        Raises:
            CommandError, DalstonError, OSError: the only file failed.
        """
        self._for_each(lambda number: output.print_line(self._run(number).submit()))
        if self._runs and not self._shared.store:
            output.note("a transcript is kept for a day after its job has ended; --store keeps it")
        return self._failed

    def _for_each(self, act: Callable[[int], ExitCode | None]) -> bool:
        """Calls `act` for each file that has not failed. Returns False if the command is to end."""
        for number in range(len(self._files)):
            if number in self._skipped:
                continue
            try:
                code = act(number)
            except (CommandError, DalstonError, OSError) as error:
                if len(self._files) == 1:
                    raise
                if not self._note_failure(number, error):
                    return False
                continue
            if code:
                self._failed = code
                return False
        return True

    def _note_failure(self, number: int, error: Exception) -> bool:
        """Notes that a file failed. Returns False if the other files would fail in the same way."""
        message, file = describe(error), self._files[number]
        output.note(f"error: {message if message.startswith(f'{file}: ') else f'{file}: {message}'}")
        code = exit_code_of(error)
        self._skipped.add(number)
        self._failed = self._failed or code
        return code not in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED)

    def _submit(self, number: int) -> None:
        if self._is_uploaded(number):
            self._note_number(number)
            try:
                self._run(number).submit()
            except FilesUnsupported as unsupported:
                self._fall_back(unsupported)

    def _transcribe(self, number: int, path: Path | None) -> ExitCode:
        if self._is_uploaded(number):
            try:
                return self._run(number).transcribe(self._writer(number, path))
            except FilesUnsupported as unsupported:
                self._fall_back(unsupported)
        self._note_number(number)
        file = self._files[number]
        run = Run(self._writer(number, path), file, self._why_live)
        return run.transcribe(self._client, audio_input.open_input(file), self._options)

    def _is_uploaded(self, number: int) -> bool:
        return self._uploads and audio_input.is_regular(self._files[number])

    def _fall_back(self, unsupported: FilesUnsupported) -> None:
        self._uploads = False
        output.note(f"{unsupported}: they are streamed instead")

    def _run(self, number: int) -> FileRun:
        if number not in self._runs:
            self._runs[number] = FileRun(
                self._client,
                self._files[number],
                self._shared.file_options(),
                has_words=self._shared.word_timestamps,
                is_one_of_several=len(self._files) > 1,
            )
        return self._runs[number]

    def _writer(self, number: int, path: Path | None) -> Writer:
        name = self._files[number] if len(self._files) > 1 else None
        return Writer(self._shared.output_format, path, json=self._shared.json, file=name)

    def _note_number(self, number: int) -> None:
        if len(self._files) > 1:
            output.note(f"{self._files[number]} ({number + 1} of {len(self._files)})")

    @contextmanager
    def _noting_what_is_left(self) -> Iterator[None]:
        """Reports at the end which jobs continue. SIGTERM has the effect of Ctrl-C."""

        def interrupt(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            for run in self._runs.values():
                run.note_left()
