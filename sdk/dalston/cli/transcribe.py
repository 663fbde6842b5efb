"""`dalston transcribe` and `dalston listen`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dalston.cli import audio_input, connection, output
from dalston.cli.exits import CommandError, ExitCode, describe, exit_code_of, usage
from dalston.cli.shared_options import SharedOptions, with_shared_options
from dalston.errors import DalstonError


class Encoding(StrEnum):
    pcm_s16le = "pcm_s16le"
    pcm_f32le = "pcm_f32le"
    mulaw = "mulaw"
    alaw = "alaw"


@with_shared_options
def transcribe(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Audio files or pipes, or - for standard input. Any format; raw samples with --encoding.",
            show_default=False,
        ),
    ],
    encoding: Annotated[Encoding | None, typer.Option(help="The audio is raw, in this encoding.")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send the audio at the speed of speech.")] = False,
    *,
    shared: SharedOptions,
) -> None:
    """Transcribe files or standard input.

    The transcript is written to standard output or --output, and messages to standard error. WAV needs nothing else;
    other formats need PyAV (pip install av), soundfile or ffmpeg. If one of several files fails, the others are still
    transcribed, and the exit code is that of the first failure.

    Ctrl-C ends the session: the audio sent so far is transcribed and, if requested, stored. A second Ctrl-C exits
    immediately.
    """
    raw = {"encoding": encoding and str(encoding), "sample_rate": shared.sample_rate, "channels": shared.channels}
    if encoding is None and (shared.sample_rate or shared.channels):
        raise usage("--sample-rate and --channels apply to raw audio only: add --encoding")
    audio_input.check(files)
    options = {
        **{name: value for name, value in raw.items() if value is not None},
        **shared.transcribe_options(),
        "pace": 1.0 if realtime else None,
    }
    format_ = shared.output_format
    if len(files) > 1 and shared.to in (None, "-") and not shared.json and format_.extension != "txt":
        raise usage(f"several {format_} transcripts cannot share standard output: name a folder with -o")
    code = _transcribe_each(ctx, files, options, shared)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


@with_shared_options
def listen(
    ctx: typer.Context,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Number of the microphone, or a part of its name.")
    ] = None,
    *,
    shared: SharedOptions,
) -> None:
    """Transcribe the microphone until Ctrl-C. Requires the package sounddevice (pip install sounddevice)."""
    from dalston.cli.run import Run
    from dalston.cli.target import target
    from dalston.cli.transcript_output import Writer
    from dalston.microphone import Microphone

    to = None if shared.to is None else Path(shared.to)
    path = target(to, f"microphone.{shared.extension}", force=shared.force)
    number = int(device) if device is not None and device.isdigit() else device
    microphone = Microphone(number, sample_rate=shared.sample_rate or 16_000, channels=shared.channels or 1)
    options = shared.transcribe_options()
    with connection.connect(ctx) as client:
        writer = Writer(shared.output_format, path, json=shared.json)
        code = Run(writer).transcribe(client, microphone, options)
    if code is ExitCode.OUTPUT_CLOSED:
        raise typer.Exit(code)


def _transcribe_each(
    ctx: typer.Context, files: Sequence[str], options: dict[str, Any], shared: SharedOptions
) -> ExitCode:
    """Transcribes the files one after the other. Returns the code of the first failure or of an interruption."""
    from dalston.cli.run import Run
    from dalston.cli.transcript_output import Writer, targets

    paths = targets(files, shared.to, shared.extension, force=shared.force)
    failed = ExitCode.OK
    with connection.connect(ctx) as client:
        for number, (file, path) in enumerate(zip(files, paths, strict=True), 1):
            if len(files) > 1:
                output.note(f"{file} ({number} of {len(files)})")
            writer = Writer(shared.output_format, path, json=shared.json, file=file if len(files) > 1 else None)
            try:
                code = Run(writer, file).transcribe(client, audio_input.open_input(file), options)
            except (CommandError, DalstonError, OSError) as error:
                if len(files) == 1:
                    raise
                message = describe(error)
                output.note(f"error: {message if message.startswith(f'{file}: ') else f'{file}: {message}'}")
                failed = failed or exit_code_of(error)
                if exit_code_of(error) in (ExitCode.UNAVAILABLE, ExitCode.NOT_ALLOWED):
                    break  # The other files would fail in the same way.
                continue
            if code is not ExitCode.OK:
                return code
    return failed
