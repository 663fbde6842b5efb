"""`dalston transcribe` and `dalston listen`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dalston.cli import audio_input, connection, output
from dalston.cli.exits import CommandError, ExitCode, code_of, sentence_of, usage
from dalston.cli.format import Format
from dalston.errors import DalstonError


class Transport(StrEnum):
    grpc = "grpc"
    websocket = "websocket"


class Encoding(StrEnum):
    pcm_s16le = "pcm_s16le"
    pcm_f32le = "pcm_f32le"
    mulaw = "mulaw"
    alaw = "alaw"


Language = Annotated[
    str | None,
    typer.Option("--language", "-l", metavar="CODE", help="A code such as en or en-US, or auto.", show_default="auto"),
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="A model's name.", show_default="the service's")
]
Vocabulary = Annotated[
    list[str] | None,
    typer.Option(
        "--vocabulary", metavar="TERMS", help="Names and terms to listen for, with commas between; may be repeated."
    ),
]
VocabularyFile = Annotated[
    Path | None, typer.Option("--vocabulary-file", metavar="FILE", help="A file of such terms, one a line.")
]
WordTimestamps = Annotated[
    bool, typer.Option("--word-timestamps", help="Times and confidence of every word, with --json or --format json.")
]
Store = Annotated[bool, typer.Option("--store/--no-store", help="Keep audio and transcript on the service.")]
StoreAudio = Annotated[bool | None, typer.Option(help="Keep the audio.", show_default="as --store")]
StoreTranscript = Annotated[bool | None, typer.Option(help="Keep the transcript.", show_default="as --store")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        "--output-format",
        help="What to write; json is one document at the end, text and txt are the same.",
        show_default="text",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        "--output-dir",
        metavar="FILE",
        help="Where to write: a file, a folder, or - for standard output.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Write every event as a line of JSON, in the names of the WebSocket.")
]
TransportOption = Annotated[Transport, typer.Option(help="websocket for networks that let nothing else through.")]
Wait = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="To go on trying when the service is away or full.")
]
Rate = Annotated[int | None, typer.Option("--sample-rate", metavar="HZ", min=8000, max=48_000, show_default="16000")]
Channels = Annotated[int | None, typer.Option("--channels", metavar="N", min=1, max=2, show_default="1")]


def transcribe(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Audio of any kind: files, pipes, or - for standard input; raw with --encoding.",
            show_default=False,
        ),
    ],
    language: Language = None,
    model: Model = None,
    vocabulary: Vocabulary = None,
    vocabulary_file: VocabularyFile = None,
    word_timestamps: WordTimestamps = False,
    store: Store = False,
    store_audio: StoreAudio = None,
    store_transcript: StoreTranscript = None,
    format_: FormatOption = None,
    json: JsonLines = False,
    to: Output = None,
    force: Force = False,
    encoding: Annotated[Encoding | None, typer.Option(help="The audio is raw, in this encoding.")] = None,
    sample_rate: Rate = None,
    channels: Channels = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send it as fast as it was spoken.")] = False,
    transport: TransportOption = Transport.grpc,
    wait: Wait = 0.0,
) -> None:
    """Transcribes files, or standard input while it is sent.

    The transcript goes to standard output or to --output, everything about it to standard error. WAV of every kind is
    read; for other kinds PyAV (pip install av), soundfile or ffmpeg has to be installed. Of several files one that
    fails does not keep the others; the exit code is the first failure's.

    Ctrl-C ends the session well: what was sent until then is transcribed, and stored if it was to be. A second one
    leaves at once.
    """
    raw = {"encoding": encoding and str(encoding), "sample_rate": sample_rate, "channels": channels}
    if encoding is None and (sample_rate or channels):
        raise usage("--sample-rate and --channels are for raw audio: say its --encoding, too")
    audio_input.check(files)
    options = {
        **{name: value for name, value in raw.items() if value is not None},
        **_config(language, model, store, store_audio, store_transcript, json=json),
        **_words(vocabulary, vocabulary_file, word_timestamps),
        "transport": str(transport),
        "wait": wait,
        "pace": 1.0 if realtime else None,
    }
    chosen = _chosen(format_, json=json)
    if len(files) > 1 and to in (None, "-") and not json and chosen.extension != "txt":
        raise usage(f"several files do not go into one {chosen} on standard output: name a folder with -o")
    code = _transcribe_each(ctx, files, options, chosen, to, json=json, force=force)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def listen(
    ctx: typer.Context,
    language: Language = None,
    model: Model = None,
    vocabulary: Vocabulary = None,
    vocabulary_file: VocabularyFile = None,
    word_timestamps: WordTimestamps = False,
    store: Store = False,
    store_audio: StoreAudio = None,
    store_transcript: StoreTranscript = None,
    format_: FormatOption = None,
    json: JsonLines = False,
    to: Output = None,
    force: Force = False,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Number or part of the name of a microphone.")
    ] = None,
    sample_rate: Rate = None,
    channels: Channels = None,
    transport: TransportOption = Transport.grpc,
    wait: Wait = 0.0,
) -> None:
    """Transcribes what the microphone hears, until Ctrl-C. Needs the package sounddevice (pip install sounddevice)."""
    from dalston.cli.run import Run
    from dalston.cli.target import target
    from dalston.cli.transcript_output import Writer
    from dalston.microphone import Microphone

    chosen = _chosen(format_, json=json)
    path = target(None if to is None else Path(to), f"microphone.{_extension(chosen, json=json)}", force=force)
    number = int(device) if device is not None and device.isdigit() else device
    microphone = Microphone(number, sample_rate=sample_rate or 16_000, channels=channels or 1)
    options = {
        **_config(language, model, store, store_audio, store_transcript, json=json),
        **_words(vocabulary, vocabulary_file, word_timestamps),
        "transport": str(transport),
        "wait": wait,
    }
    with connection.connect(ctx) as client:
        code = Run(Writer(chosen, path, json=json)).transcribe(client, microphone, options)
    if code is ExitCode.UNREAD:
        raise typer.Exit(code)


def _transcribe_each(
    ctx: typer.Context,
    files: Sequence[str],
    options: dict[str, Any],
    format_: Format,
    to: str | None,
    *,
    json: bool,
    force: bool,
) -> ExitCode:
    """The exit code: of the first that failed, or of what ended it."""
    from dalston.cli.run import Run
    from dalston.cli.transcript_output import Writer, targets

    paths = targets(files, to, _extension(format_, json=json), force=force)
    failed = ExitCode.OK
    with connection.connect(ctx) as client:
        for number, (file, path) in enumerate(zip(files, paths, strict=True), 1):
            if len(files) > 1:
                output.note(f"{file} ({number} of {len(files)})")
            writer = Writer(format_, path, json=json, file=file if len(files) > 1 else None)
            try:
                code = Run(writer, file).transcribe(client, audio_input.open_input(file), options)
            except (CommandError, DalstonError, OSError) as error:
                if len(files) == 1:
                    raise
                told = sentence_of(error)
                output.note(f"error: {told if told.startswith(f'{file}: ') else f'{file}: {told}'}")
                failed = failed or code_of(error)
                if code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # It would be the same with the others.
                continue
            if code is not ExitCode.OK:
                return code
    return failed


def _chosen(format_: Format | None, *, json: bool) -> Format:
    if format_ is not None and json:
        raise usage("--json writes events and --format a transcript: choose one of them")
    return format_ or Format.text


def _extension(format_: Format, *, json: bool) -> str:
    return "jsonl" if json else format_.extension


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


def _words(vocabulary: Sequence[str] | None, file: Path | None, timestamps: bool) -> dict[str, Any]:
    """What the service is asked for about words."""
    lines = [*(vocabulary or ()), *_lines(file)]
    terms = [term.strip() for line in lines for term in line.split(",") if term.strip()]
    asked: dict[str, Any] = {"vocabulary": list(dict.fromkeys(terms))} if terms else {}
    return asked | ({"word_timestamps": True} if timestamps else {})


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise usage(f"the vocabulary in {file} cannot be read: {why}") from None
