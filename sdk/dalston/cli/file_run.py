"""Transcribes one file as a batch job, and reports its progress and summary."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dalston.cli import output
from dalston.cli.exits import CommandError, ExitCode, describe, exit_code_of, usage
from dalston.cli.file_view import FileView
from dalston.errors import DalstonError, InvalidRequest, Unsupported
from dalston.records import FileProgress, JobStatus

if TYPE_CHECKING:
    from dalston.cli.transcript_output import Writer
    from dalston.client import Client
    from dalston.events import Reconnecting
    from dalston.records import Job, Utterance


class FilesUnsupported(CommandError):
    """The service takes no files."""

    def __init__(self) -> None:
        super().__init__("the service is older than this command and takes no files")


class FileRun:
    """The transcription of one regular file.

    Args:
        options: the arguments of `Client.transcribe_file`.
        has_words: whether to keep the times and confidence of words.
        is_one_of_several: whether messages name the file.
    """

    def __init__(
        self, client: Client, file: str, options: dict[str, Any], *, has_words: bool, is_one_of_several: bool
    ) -> None:
        self._file = file
        self._label = file if is_one_of_several else ""
        self._has_words = has_words
        self._is_stored: bool = options["store"]
        self._progress = FileProgress(0, None)
        self._view: FileView | None = None
        self._is_announced = False
        self._has_noted_wait = False
        self._has_begun = False
        self._is_over = False
        self._transcription = client.transcribe_file(
            file, **options, on_progress=self._on_progress, on_reconnect=_note_reconnecting
        )

    def submit(self) -> str:
        """Uploads the file. Returns the id of its job.

        Raises:
            FilesUnsupported: the service takes no files.
            CommandError, DalstonError, OSError: the upload failed.
        """
        with FileView(self._label) as self._view:
            self._begin(self._transcription.submit)
        job = self._transcription.job
        return job.id if job else ""

    def transcribe(self, writer: Writer) -> ExitCode:
        """Uploads the file unless that is done, and writes its transcript. Returns whether stdout was closed.

        Raises:
            FilesUnsupported: the service takes no files.
            CommandError, DalstonError, OSError: the upload or the transcription failed.
            KeyboardInterrupt: the user interrupted it; the job continues.
        """
        is_whole = False
        try:
            self._transcribe(writer)
            is_whole = True
        except BrokenPipeError:
            output.discard(sys.stdout)
            return ExitCode.OUTPUT_CLOSED
        finally:
            writer.close(is_whole=is_whole)
        self._is_over = True
        output.note(self._summary())
        return ExitCode.OK

    def note_left(self) -> None:
        """Reports how to find a job that continues, or a file that is not uploaded."""
        job, sent = self._transcription.job, self._progress
        if self._is_over or not self._has_begun:
            return
        if job is not None:
            kept = "" if self._is_stored else "; its transcript is kept for a day"
            output.note(f"{self._prefix}job {job.id} continues{kept}: dalston jobs show {job.id}")
        elif sent.sent_bytes == sent.total_bytes:
            output.note(f"{self._file} was uploaded, and its job may exist: dalston jobs list")
        else:
            output.note(f"{self._file} was not uploaded completely")

    def _transcribe(self, writer: Writer) -> None:
        transcription = self._transcription
        with FileView(self._label) as self._view, ExitStack() as stack:
            self._begin(lambda: stack.enter_context(transcription))
            writer.begin()
            try:
                for utterance in transcription:
                    writer.write_utterance(self._shown(utterance))
            except DalstonError as error:
                self._is_over = self._has_ended()
                self._write_end(writer)
                raise CommandError(f"{self._file}: {describe(error)}", exit_code_of(error)) from error
            self._write_end(writer)

    def _begin(self, send: Callable[[], object]) -> None:
        """Sends the file, and reports its session and job."""
        self._has_begun = True
        try:
            send()
        except Unsupported:
            self._is_over = True
            raise FilesUnsupported from None
        except InvalidRequest as error:
            self._is_over = True
            if error.reason in ("UNSUPPORTED_MEDIA", "FILE_TOO_BIG"):
                raise usage(f"{self._file}: {error.message}") from None
            raise
        except (DalstonError, OSError):
            self._is_over = True
            raise
        self._announce()

    def _announce(self) -> None:
        job = self._transcription.job
        if job is not None and not self._is_announced:
            self._is_announced = True
            output.note(f"session {job.session_id}")
            output.note(f"job {job.id}")
            self._note_wait(job)

    def _write_end(self, writer: Writer) -> None:
        transcript = self._transcription.transcript
        utterances = tuple(self._shown(each) for each in transcript.utterances)
        writer.end(replace(transcript, utterances=utterances), (transcript.session_id,))

    def _shown(self, utterance: Utterance) -> Utterance:
        return utterance if self._has_words else replace(utterance, words=())

    def _has_ended(self) -> bool:
        job = self._transcription.job
        return job is not None and job.status not in (JobStatus.QUEUED, JobStatus.RUNNING)

    def _summary(self) -> str:
        job = self._transcription.job
        assert job is not None  # noqa: S101 - for the type checker
        kept = f"stored as session {job.session_id}" if self._is_stored else "nothing stored"
        return f"{self._prefix}job {job.id} completed: {job.audio_duration_seconds:.1f} s of audio, {kept}"

    @property
    def _prefix(self) -> str:
        return f"{self._label}: " if self._label else ""

    def _on_progress(self, progress: FileProgress) -> None:
        self._progress = progress
        if self._view is not None:
            self._view.show(progress)
        if progress.job is not None and self._is_announced:
            self._note_wait(progress.job)

    def _note_wait(self, job: Job) -> None:
        if job.status is JobStatus.QUEUED and job.step == "worker" and not self._has_noted_wait:
            self._has_noted_wait = True
            output.note(f"{self._prefix}the job waits, because no worker is running")


def _note_reconnecting(event: Reconnecting) -> None:
    output.note(f"reconnecting in {event.delay:.1f} s: {event.reason}")
