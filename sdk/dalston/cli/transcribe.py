"""`dalston transcribe` and `dalston listen`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dalston.cli import audio_input, connection
from dalston.cli.exits import ExitCode, usage
from dalston.cli.shared_options import SharedOptions, with_shared_options


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
            help="Files or pipes, or - for standard input. Any format; raw samples with --encoding.",
            show_default=False,
        ),
    ],
    encoding: Annotated[Encoding | None, typer.Option(help="The audio is raw, in this encoding.")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send the audio at the speed of speech.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Stream the audio and decode it here instead of uploading the file.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Upload the file, print the id of its job and exit.")
    ] = False,
    *,
    shared: SharedOptions,
) -> None:
    """Transcribe files or standard input.

    A file is uploaded, and the service decodes and transcribes it as a batch job. Standard input and pipes are
    streamed, and so is a file with --live, --realtime, --json, --encoding, --transport websocket, --store-audio or
    --store-transcript; formats other than WAV then need PyAV (pip install av), soundfile or ffmpeg here.

    The transcript is written to standard output or --output, and messages to standard error. If one of several files
    fails, the others are still transcribed, and the exit code is that of the first failure.

    Ctrl-C leaves the jobs of uploaded files, which continue (dalston jobs show JOB). It ends a stream: the audio sent
    so far is transcribed and, if requested, stored. A second Ctrl-C exits immediately.
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
    own = {"--live": live, "--realtime": realtime, "--encoding": encoding is not None}
    why_live = _why_live(shared, options, own)
    if no_wait:
        _check_no_wait(files, shared, why_live)
    code = _transcribe(ctx, files, shared, options, why_live, no_wait=no_wait)
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


def _why_live(shared: SharedOptions, options: dict[str, Any], own: dict[str, bool]) -> str | None:
    """The first option that only live streams have; None if regular files can be uploaded.

    Args:
        options: the arguments of `Client.transcribe`.
        own: the options of `dalston transcribe`, and whether they are given.
    """
    given = own | {
        "--json": shared.json,
        "--transport websocket": shared.transport == "websocket",
        "--store-audio": shared.store_audio is not None,
        "--store-transcript": shared.store_transcript is not None,
        "--enhance": "enhance_on_end" in options,
    }
    return next((name for name, is_given in given.items() if is_given), None)


def _check_no_wait(files: Sequence[str], shared: SharedOptions, why_live: str | None) -> None:
    if why_live is not None:
        raise usage(f"--no-wait uploads files, and {why_live} streams them: choose one of them")
    for file in files:
        if not audio_input.is_regular(file):
            raise usage(f"--no-wait uploads files, and {file} is none")
    if shared.to is not None or shared.format_ is not None:
        raise usage("--no-wait writes no transcript: omit --output and --format")


def _transcribe(
    ctx: typer.Context,
    files: Sequence[str],
    shared: SharedOptions,
    options: dict[str, Any],
    why_live: str | None,
    *,
    no_wait: bool,
) -> ExitCode:
    from dalston.cli.transcript_output import targets

    paths = targets(files, shared.to, shared.extension, force=shared.force)
    with connection.connect(ctx) as client:
        from dalston.cli.files import Files

        run = Files(client, files, shared, options, why_live)
        return run.submit() if no_wait else run.transcribe(paths)
