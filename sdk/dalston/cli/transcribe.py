"""`dalston transcribe` and `dalston listen`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from dalston.cli import connection, output
from dalston.cli.exits import CommandError, ExitCode, code_of, sentence_of, usage

if TYPE_CHECKING:
    from dalston.cli.captions import Captions
    from dalston.cli.live_view import LiveView
    from dalston.events import Ended, Event
    from dalston.options import AudioSource
    from dalston.transcription import Transcription


class Format(StrEnum):
    text = "text"
    srt = "srt"
    vtt = "vtt"
    json = "json"


class Transport(StrEnum):
    grpc = "grpc"
    websocket = "websocket"


class Encoding(StrEnum):
    pcm_s16le = "pcm_s16le"
    pcm_f32le = "pcm_f32le"
    mulaw = "mulaw"
    alaw = "alaw"


Language = Annotated[
    str | None, typer.Option("--language", "-l", metavar="CODE", help="ISO 639-1 code, or auto.", show_default="auto")
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="A model's name.", show_default="the service's")
]
Store = Annotated[bool, typer.Option("--store/--no-store", help="Keep audio and transcript on the service.")]
StoreAudio = Annotated[bool | None, typer.Option(help="Keep the audio.", show_default="as --store")]
StoreTranscript = Annotated[bool | None, typer.Option(help="Keep the transcript.", show_default="as --store")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="What to print; json is one document at the end.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print every event as a line of JSON, in the names of the WebSocket.")
]
TransportOption = Annotated[Transport, typer.Option(help="websocket for networks that let nothing else through.")]
Wait = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="To go on trying when the service is away or full.")
]
Rate = Annotated[int | None, typer.Option("--sample-rate", metavar="HZ", min=8000, max=48_000, show_default="16000")]
Channels = Annotated[int | None, typer.Option("--channels", metavar="N", min=1, max=2, show_default="1")]


def transcribe(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A WAV file or pipe, raw audio with --encoding, or - for standard input.",
            show_default=False,
        ),
    ],
    language: Language = None,
    model: Model = None,
    store: Store = False,
    store_audio: StoreAudio = None,
    store_transcript: StoreTranscript = None,
    format_: FormatOption = Format.text,
    json: JsonLines = False,
    encoding: Annotated[Encoding | None, typer.Option(help="The audio is raw, in this encoding.")] = None,
    sample_rate: Rate = None,
    channels: Channels = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send it as fast as it was spoken.")] = False,
    transport: TransportOption = Transport.grpc,
    wait: Wait = 0.0,
) -> None:
    """Transcribes a file or standard input while it is sent.

    The transcript goes to standard output, everything about it to standard error. Ctrl-C ends the session well: what
    was sent until then is transcribed, and stored if it was to be. A second one leaves at once.
    """
    raw = {"encoding": encoding and str(encoding), "sample_rate": sample_rate, "channels": channels}
    if encoding is None and (sample_rate or channels):
        raise usage("--sample-rate and --channels are for raw audio: say its --encoding, too")
    if file == "-":
        if sys.stdin.isatty():
            raise usage("standard input is a terminal: pipe audio into it")
        source: AudioSource = _Pipe(sys.stdin.buffer)  # type: ignore[assignment]  # a BinaryIO as far as it is read
    elif Path(file).is_dir():
        raise usage(f"{file} is a folder, not a file of audio")
    elif not Path(file).exists():
        raise usage(f"there is no file {file}")
    else:
        source = file if Path(file).is_file() else _open_pipe(file)
    options = {
        **{name: value for name, value in raw.items() if value is not None},
        **_config(language, model, store, store_audio, store_transcript, json=json),
        "transport": str(transport),
        "wait": wait,
        "pace": 1.0 if realtime else None,
    }
    total = _seconds(Path(file), raw) if source == file else None
    run = _Run(total, _Printer(format_, json=json), file)
    if run.transcribe(ctx, source, options):
        raise typer.Exit(ExitCode.INTERRUPTED)


def listen(
    ctx: typer.Context,
    language: Language = None,
    model: Model = None,
    store: Store = False,
    store_audio: StoreAudio = None,
    store_transcript: StoreTranscript = None,
    format_: FormatOption = Format.text,
    json: JsonLines = False,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Number or part of the name of a microphone.")
    ] = None,
    sample_rate: Rate = None,
    channels: Channels = None,
    transport: TransportOption = Transport.grpc,
    wait: Wait = 0.0,
) -> None:
    """Transcribes what the microphone hears, until Ctrl-C. Needs the extra `microphone`."""
    from dalston.microphone import Microphone

    number = int(device) if device is not None and device.isdigit() else device
    microphone = Microphone(number, sample_rate=sample_rate or 16_000, channels=channels or 1)
    options = {
        **_config(language, model, store, store_audio, store_transcript, json=json),
        "transport": str(transport),
        "wait": wait,
    }
    _Run(None, _Printer(format_, json=json)).transcribe(ctx, microphone, options)


def _config(
    language: str | None, model: str | None, store: bool, audio: bool | None, transcript: bool | None, *, json: bool
) -> dict[str, Any]:
    """What the service is asked for."""
    given = {
        "language": language,
        "model": model,
        "store_audio": store if audio is None else audio,
        "store_transcript": store if transcript is None else transcript,
    }
    if not json and not output.is_terminal(sys.stdout) and not output.is_terminal(sys.stderr):
        given["interim_results"] = False  # Nobody would see them.
    return {name: value for name, value in given.items() if value is not None}


class _Pipe:
    """Standard input: gives what is there, instead of waiting for as much as is asked for."""

    _HEADER_BYTES = 64
    """What is read in such small steps is a header, of which every byte is needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size <= self._HEADER_BYTES:
            return self._file.read(size)
        return self._file.read1(size)  # type: ignore[attr-defined,no-any-return]  # it is a BufferedReader


def _open_pipe(file: str) -> AudioSource:
    """A named pipe, such as the shell's <(command)."""
    descriptor = os.open(file, os.O_RDONLY)
    # Never closed: a thread may be waiting in it, which closing would wait for.
    return _Pipe(open(descriptor, "rb", closefd=False))  # type: ignore[return-value]


class _Printer:
    """Writes what was said to stdout, in the format asked for."""

    def __init__(self, format_: Format, *, json: bool) -> None:
        self._format = format_
        self._json = json
        self._captions: Captions | None = None

    def begin(self) -> None:
        if not self._json and self._format in (Format.srt, Format.vtt):
            from dalston.cli.captions import Captions

            self._captions = Captions(is_vtt=self._format is Format.vtt)
            self._write(self._captions.begin())

    def take(self, event: Event) -> None:
        from dalston.events import Final

        if self._json:
            from dalston.cli import documents

            output.say_json_line(documents.event(event))
        elif not isinstance(event, Final):
            return
        elif self._captions is not None:
            self._write(self._captions.push(event))
        elif self._format is Format.text:
            output.say(event.text)

    def end(self, stream: Transcription) -> None:
        """However it ended: what there is is written."""
        if not self._json and self._format is Format.json and stream.session_ids:
            from dalston.cli import documents

            output.say_json(documents.document(stream.transcript) | {"session_ids": stream.session_ids})

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _Run:
    """One transcription, from the first byte to what is said about it at the end."""

    def __init__(self, total: float | None, printer: _Printer, file: str | None = None) -> None:
        self._total = total
        self._printer = printer
        self._file = file
        self._interrupts = 0
        self._suppressed = 0

    def transcribe(self, ctx: typer.Context, source: AudioSource, options: dict[str, Any]) -> bool:
        """Whether the user ended it."""
        from dalston.cli.live_view import LiveView
        from dalston.errors import InvalidRequest

        with connection.connect(ctx) as client:
            stream = client.transcribe(source, **options)
            try:
                with LiveView(self._total) as view, stream, self._ended_by_signals(stream, view):
                    self._printer.begin()
                    try:
                        for event in stream:
                            self._take(event, view, options)
                    finally:
                        self._printer.end(stream)
            except (ValueError, RuntimeError) as error:  # Audio of an impossible kind; a microphone that is not there.
                raise CommandError(
                    str(error), ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED
                ) from error
            except InvalidRequest as error:
                if error.reason != "INVALID_AUDIO" or self._file is None or stream.session_ids:
                    raise
                raise usage(_unfit(self._file, error.message)) from None
            except BrokenPipeError:  # Whoever read the transcript has enough of it.
                raise
            except KeyboardInterrupt:
                if stream.session_ids:
                    output.note(f"session {stream.session_ids[-1]} was left before its end: it is interrupted")
                raise
            except Exception as error:
                if not stream.session_ids:
                    raise
                output.note(f"session {stream.session_ids[-1]} broke off")
                raise CommandError(sentence_of(error), code_of(error)) from error
        return self._interrupts > 0

    def _take(self, event: Event, view: LiveView, options: dict[str, Any]) -> None:
        from dalston import events

        match event:
            case events.SessionBegan():
                output.note(f"session {event.session_id}")
            case events.Partial():
                view.partial(event.text)
            case events.Final() | events.SpeechStarted():  # An utterance that was no speech has no final.
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
        self._printer.take(event)

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


def _unfit(file: str, why: str) -> str:
    """What is wrong with a file, and what helps where it is audio of another kind."""
    if file == "-":
        file, told = "FILE", why
    else:
        told = f"{file}: {why}"
        if not Path(file).stat().st_size:
            return told
    return (
        f"{told}. Audio of any kind comes by a pipe: ffmpeg -i {shlex.quote(file)} -f s16le -ac 1 -ar 16000 - "
        "| dalston transcribe - --encoding pcm_s16le"
    )


def _summary(ended: Ended, options: dict[str, Any]) -> str:
    """What happened, and what is kept of it."""
    kept = [name for name, uri in (("audio", ended.audio_uri), ("transcript", ended.transcript_uri)) if uri]
    asked = [name for name in ("audio", "transcript") if options[f"store_{name}"]]
    late = [name for name in asked if name not in kept]
    what = f"stored: {' and '.join(kept)}" if kept else "nothing stored"
    if late:
        what += f"; not stored yet: {' and '.join(late)}"
    return f"session {ended.session_id} ended: {ended.duration:.1f} s of audio, {what}"


def _seconds(path: Path, raw: dict[str, Any]) -> float | None:
    """How long a file lasts, as far as one can tell without reading it."""
    from dalston.errors import InvalidRequest
    from dalston.live.format import AudioFormat
    from dalston.live.wav import read_header

    try:
        if raw["encoding"] is not None:
            format_ = AudioFormat(**{name: value for name, value in raw.items() if value is not None})
            return format_.seconds(path.stat().st_size)
        with path.open("rb") as file:
            file.read(4)
            format_, size = read_header(file)
            return None if size is None else format_.seconds(size)
    except (InvalidRequest, ValueError):
        return None  # The transcription will say what is wrong.
