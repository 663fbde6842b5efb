"""Runs one transcription and reports its progress and summary."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dalston.cli import audio_input, output
from dalston.cli.exits import CommandError, ExitCode, describe, exit_code_of, usage

if TYPE_CHECKING:
    from dalston.cli.live_view import LiveView
    from dalston.cli.transcript_output import Writer
    from dalston.client import Client
    from dalston.events import Ended, Event
    from dalston.live.decoders import MissingDecoder
    from dalston.options import AudioSource
    from dalston.transcription import Transcription


class Run:
    """The transcription of one audio source.

    Args:
        file: the name of the file, for error messages.
        why_live: the option that requires a live stream of a file that could be uploaded.
    """

    def __init__(self, writer: Writer, file: str | None = None, why_live: str | None = None) -> None:
        self._writer = writer
        self._file = file
        self._why_live = why_live
        self._interrupts = 0
        self._suppressed = 0
        self._is_output_closed = False

    def transcribe(self, client: Client, source: AudioSource, options: dict[str, Any]) -> ExitCode:
        """Transcribes the source. Returns whether it completed, was interrupted, or lost its standard output.

        Raises:
            CommandError, DalstonError, OSError: the transcription failed.
            KeyboardInterrupt: the user interrupted it twice.
        """
        is_whole = False
        try:
            self._transcribe(client, source, options)
            is_whole = True
        finally:
            self._writer.close(is_whole=is_whole)
        if self._is_output_closed:
            return ExitCode.OUTPUT_CLOSED
        return ExitCode.INTERRUPTED if self._interrupts else ExitCode.OK

    def _transcribe(self, client: Client, source: AudioSource, options: dict[str, Any]) -> None:
        from dalston.cli.live_view import LiveView
        from dalston.errors import InvalidRequest
        from dalston.live.decoders import MissingDecoder

        stream = client.transcribe(source, **options)
        try:
            with stream, LiveView(stream.audio_seconds) as view, self._ended_by_signals(stream, view):
                self._write(stream, self._writer.begin)
                try:
                    for event in stream:
                        self._show(event, view, options)
                        self._write(stream, self._writer.write_event, event)
                finally:
                    self._write(stream, self._writer.end, stream.transcript, stream.session_ids)
        except (ValueError, RuntimeError) as error:  # Unsupported audio, or no microphone.
            raise CommandError(
                str(error), ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED
            ) from error
        except MissingDecoder as error:
            raise usage(self._remedy(error)) from None
        except InvalidRequest as error:
            if error.reason != "INVALID_AUDIO" or self._file is None or stream.session_ids:
                raise
            raise usage(error.message if self._file == "-" else f"{self._file}: {error.message}") from None
        except KeyboardInterrupt:
            if stream.session_ids:
                # The session may have ended at the same moment, so the message does not state its status.
                output.note(f"exited before session {stream.session_ids[-1]} had ended")
            raise
        except Exception as error:
            if not stream.session_ids:
                raise
            output.note(f"session {stream.session_ids[-1]} failed")
            raise CommandError(describe(error), exit_code_of(error)) from error

    def _remedy(self, error: MissingDecoder) -> str:
        """The message about a file that cannot be read here."""
        prefix = "" if self._file in (None, "-") else f"{self._file}: "
        if self._file is None or not audio_input.is_regular(self._file):
            return f"{prefix}{error.problem}; {error.remedy}, or save it to a file, which the service decodes"
        if self._why_live is None:
            return f"{prefix}{error.problem}; {error.remedy}"
        return f"{prefix}{error.problem}; omit {self._why_live}, and the service decodes the file"

    def _write(self, stream: Transcription, write: Any, *args: Any) -> None:
        """Writes output. Ends the session if standard output is closed, so that the sent audio is still stored."""
        if self._is_output_closed:
            return
        try:
            write(*args)
        except BrokenPipeError:
            self._is_output_closed = True
            output.discard(sys.stdout)
            stream.end()

    def _show(self, event: Event, view: LiveView, options: dict[str, Any]) -> None:
        from dalston import events

        match event:
            case events.SessionBegan():
                output.note(f"session {event.session_id}")
            case events.PartialResult():
                view.partial(event.text)
            case (
                events.FinalResult() | events.SpeechStarted()
            ):  # An utterance that turns out not to be speech has no final.
                view.partial("")
            case events.Acknowledged():
                view.processed(event.processed)
            case events.Warned(code="speech_suppressed"):
                view.partial("")
                self._suppressed += 1
            case events.Warned():
                output.note(f"warning: {event.message}")
            case events.Reconnecting():
                output.note(f"reconnecting in {event.delay:.1f} s: {event.reason}")
            case events.Resumed():
                output.note(f"resumed as session {event.session_id} at {event.position:.2f} s")
            case events.Ended():
                if self._suppressed:
                    times = "once" if self._suppressed == 1 else f"{self._suppressed} times"
                    output.note(f"text was suppressed {times} for detected speech; --json shows where and why")
                output.note(_summary(event, options))

    @contextmanager
    def _ended_by_signals(self, stream: Transcription, view: LiveView) -> Iterator[None]:
        def receive(_number: int, _frame: object) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
            view.is_ending = True
            stream.end()

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, receive) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _summary(ended: Ended, options: dict[str, Any]) -> str:
    """The summary of a session and of the objects stored."""
    kept = [name for name, uri in (("audio", ended.audio_uri), ("transcript", ended.transcript_uri)) if uri]
    asked = [name for name in ("audio", "transcript") if options[f"store_{name}"]]
    late = [name for name in asked if name not in kept]
    what = f"stored: {' and '.join(kept)}" if kept else "nothing stored"
    if late:
        what += f"; not stored yet: {' and '.join(late)}"
    return f"session {ended.session_id} ended: {ended.duration:.1f} s of audio, {what}"
