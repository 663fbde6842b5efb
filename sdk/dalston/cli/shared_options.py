"""The options that `dalston transcribe` and `dalston listen` share."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dalston.cli import output
from dalston.cli.exits import usage
from dalston.cli.format import Format


class Transport(StrEnum):
    grpc = "grpc"
    websocket = "websocket"


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """One field for each option: Typer reads its annotation and its default."""

    language: Annotated[
        str | None,
        typer.Option(
            "--language", "-l", metavar="CODE", help="Language code such as en or en-US, or auto.", show_default="auto"
        ),
    ] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model to use.", show_default="of the service")
    ] = None
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(
            "--vocabulary", metavar="TERMS", help="Expected names and terms, separated by commas. Repeatable."
        ),
    ] = None
    vocabulary_file: Annotated[
        Path | None, typer.Option("--vocabulary-file", metavar="FILE", help="File with such terms, one per line.")
    ] = None
    word_timestamps: Annotated[
        bool,
        typer.Option("--word-timestamps", help="Include times and confidence of words, with --json or --format json."),
    ] = False
    store: Annotated[bool, typer.Option("--store/--no-store", help="Store audio and transcript on the service.")] = (
        False
    )
    store_audio: Annotated[bool | None, typer.Option(help="Store the audio.", show_default="as --store")] = None
    store_transcript: Annotated[bool | None, typer.Option(help="Store the transcript.", show_default="as --store")] = (
        None
    )
    enhance: Annotated[
        bool,
        typer.Option("--enhance", help="Transcribe the recording again after the end; this stores the audio."),
    ] = False
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            "--output-format",
            help="Format of the transcript. json is one document at the end; text and txt are the same.",
            show_default="text",
        ),
    ] = None
    json: Annotated[
        bool, typer.Option("--json", help="Write every event as a line of JSON, as the WebSocket API names it.")
    ] = False
    to: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            "--output-dir",
            metavar="FILE",
            help="Output file or folder, or - for standard output.",
            show_default=False,
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False
    sample_rate: Annotated[
        int | None,
        typer.Option(
            "--sample-rate", metavar="HZ", min=8000, max=48_000, help="Samples per second.", show_default="16000"
        ),
    ] = None
    channels: Annotated[
        int | None,
        typer.Option("--channels", metavar="N", min=1, max=2, help="Number of channels.", show_default="1"),
    ] = None
    transport: Annotated[Transport, typer.Option(help="Use websocket in networks that block gRPC.")] = Transport.grpc
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Time to retry while the service is unavailable or at capacity."),
    ] = 0.0

    @property
    def output_format(self) -> Format:
        """The format of the transcript.

        Raises:
            CommandError: both a format and `--json` are set.
        """
        if self.format_ is not None and self.json:
            raise usage("--json writes events and --format a transcript: choose one of them")
        return self.format_ or Format.text

    @property
    def extension(self) -> str:
        """The extension of an output file."""
        return "jsonl" if self.json else self.output_format.extension

    def transcribe_options(self) -> dict[str, Any]:
        """The arguments of `Client.transcribe`, without the format of the audio.

        Raises:
            CommandError: the vocabulary cannot be read, or `--enhance` is set without storing the audio.
        """
        if self.enhance and self.store_audio is False:
            raise usage("--enhance needs the audio: remove --no-store-audio")
        given: dict[str, Any] = {
            "language": self.language,
            "model": self.model,
            "store_audio": self.store or self.enhance if self.store_audio is None else self.store_audio,
            "store_transcript": self.store if self.store_transcript is None else self.store_transcript,
            "enhance_on_end": self.enhance or None,
            "vocabulary": self._terms() or None,
            "word_timestamps": self.word_timestamps or None,
            "transport": str(self.transport),
            "wait": self.wait,
        }
        if not self.json and not output.is_terminal(sys.stdout) and not output.is_terminal(sys.stderr):
            given["interim_results"] = False  # Partials are shown on terminals only.
        return {name: value for name, value in given.items() if value is not None}

    def file_options(self) -> dict[str, Any]:
        """The arguments of `Client.transcribe_file`.

        Raises:
            CommandError: the vocabulary cannot be read.
        """
        return {
            "language": self.language,
            "model": self.model,
            "vocabulary": self._terms(),
            "store": self.store,
            "wait": self.wait,
        }

    def _terms(self) -> list[str]:
        lines = [*(self.vocabulary or ()), *_lines(self.vocabulary_file)]
        return list(dict.fromkeys(term.strip() for line in lines for term in line.split(",") if term.strip()))


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the shared options to a command, which receives them as its argument `shared`."""
    hints = get_type_hints(SharedOptions, include_extras=True)
    names = [field.name for field in fields(SharedOptions)]
    own = inspect.signature(command, eval_str=True).parameters

    @wraps(command)
    def run(**arguments: Any) -> None:
        shared = SharedOptions(**{name: arguments.pop(name) for name in names})
        command(**arguments, shared=shared)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for name, parameter in own.items() if name != "shared"]
    parameters += [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(SharedOptions)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise usage(f"cannot read the vocabulary file {file}: {reason}") from None
