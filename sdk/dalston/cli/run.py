"""One transcription, from the first byte to what is said about it at the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dalston.cli import output
from dalston.cli.exits import CommandError, ExitCode, code_of, sentence_of, usage

if TYPE_CHECKING:
    from dalston.cli.live_view import LiveView
    from dalston.cli.transcript_output import Writer
    from dalston.client import Client
    from dalston.events import Ended, Event
    from dalston.options import AudioSource
    from dalston.transcription import Transcription


class Run:
    """Of one source of audio.

    Args:
        file: its name, for what is wrong with it.
    """

    def __init__(self, writer: Writer, file: str | None = None) -> None:
        self._writer = writer
        self._file = file
        self._interrupts = 0
        self._suppressed = 0
        self._is_unread = False

    def transcribe(self, client: Client, source: AudioSource, options: dict[str, Any]) -> ExitCode:
        """Whether all of it was transcribed, or the user ended it, or whoever read the transcript did.

        Raises:
            CommandError, DalstonError, OSError: it failed.
            KeyboardInterrupt: the user did not want to wait for the end.
        """
        is_whole = False
        try:
            self._transcribe(client, source, options)
            is_whole = True
        finally:
            self._writer.close(is_whole=is_whole)
        if self._is_unread:
            return ExitCode.UNREAD
        return ExitCode.INTERRUPTED if self._interrupts else ExitCode.OK

    def _transcribe(self, client: Client, source: AudioSource, options: dict[str, Any]) -> None:
        from dalston.cli.live_view import LiveView
        from dalston.errors import InvalidRequest

        stream = client.transcribe(source, **options)
        try:
            with stream, LiveView(stream.audio_seconds) as view, self._ended_by_signals(stream, view):
                self._write(stream, self._writer.begin)
                try:
                    for event in stream:
                        self._show(event, view, options)
                        self._write(stream, self._writer.take, event)
                finally:
                    self._write(stream, self._writer.end, stream)
        except (ValueError, RuntimeError) as error:  # Audio of an impossible kind; a microphone that is not there.
            raise CommandError(
                str(error), ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED
            ) from error
        except InvalidRequest as error:
            if error.reason != "INVALID_AUDIO" or self._file is None or stream.session_ids:
                raise
            raise usage(error.message if self._file == "-" else f"{self._file}: {error.message}") from None
        except KeyboardInterrupt:
            if stream.session_ids:
                # It may have ended in the same moment, so no more is claimed than is known.
                output.note(f"session {stream.session_ids[-1]} was left before its end was known")
            raise
        except Exception as error:
            if not stream.session_ids:
                raise
            output.note(f"session {stream.session_ids[-1]} broke off")
            raise CommandError(sentence_of(error), code_of(error)) from error

    def _write(self, stream: Transcription, what: Any, *args: Any) -> None:
        """Writes; if nobody reads it any more, ends the session well: what was sent is stored if it was to be."""
        if self._is_unread:
            return
        try:
            what(*args)
        except BrokenPipeError:
            self._is_unread = True
            output.forget(sys.stdout)
            stream.end()

    def _show(self, event: Event, view: LiveView, options: dict[str, Any]) -> None:
        from dalston import events

        match event:
            case events.SessionBegan():
                output.note(f"session {event.session_id}")
            case events.PartialResult():
                view.partial(event.text)
            case events.FinalResult() | events.SpeechStarted():  # An utterance that was no speech has no final.
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
                output.note(f"session {event.session_id} goes on at {event.position:.2f} s")
            case events.Ended():
                if self._suppressed:
                    times = "once" if self._suppressed == 1 else f"{self._suppressed} times"
                    output.note(f"speech was detected {times} for which there is no text; --json says where and why")
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
    """What happened, and what is kept of it."""
    kept = [name for name, uri in (("audio", ended.audio_uri), ("transcript", ended.transcript_uri)) if uri]
    asked = [name for name in ("audio", "transcript") if options[f"store_{name}"]]
    late = [name for name in asked if name not in kept]
    what = f"stored: {' and '.join(kept)}" if kept else "nothing stored"
    if late:
        what += f"; not stored yet: {' and '.join(late)}"
    return f"session {ended.session_id} ended: {ended.duration:.1f} s of audio, {what}"
