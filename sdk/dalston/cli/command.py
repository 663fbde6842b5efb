"""The command `dalston`. Modules that call a service are imported only when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dalston.cli import configuration, connection, jobs, keys, output, sessions, status, transcribe
from dalston.cli.app import App
from dalston.cli.config import Settings
from dalston.cli.exits import CommandError, ExitCode, OutputClosed, describe, exit_code_of
from dalston.errors import DalstonError

_EPILOG = """\b
Exit codes: 0 success, 1 failure, 2 invalid command line or parameter,
3 not found, 4 invalid key or missing scope, 5 service unavailable,
6 try again later (capacity, limit, or the session or job is still active),
130 interrupted, 141 standard output was closed.

\b
Environment: DALSTON_URL, DALSTON_API_KEY, NO_COLOR.
Configuration file: see `dalston config path`."""

app = App(
    name="dalston",
    help="Transcribe speech in real time and manage recorded sessions.",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=_EPILOG)(transcribe.transcribe)
app.command()(transcribe.listen)
app.command()(status.status)
app.add_typer(sessions.app, name="sessions")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(keys.tokens, name="tokens")
app.add_typer(configuration.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            output.print_line(f"dalston {version('dalston')}")
        except PackageNotFoundError:
            output.print_line("dalston (not installed)")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the service. Default: DALSTON_URL, the configuration, or http://127.0.0.1:8000."
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="NAME", help="Profile of the configuration file.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option(metavar="FILE", help="CA certificates to trust.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Timeout of a call, including retries.")
    ] = 5.0,
    debug: Annotated[  # noqa: ARG001 - read by `run`, which catches what fails
        bool, typer.Option("--debug", help="Show a traceback on errors.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback prints the version
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    ctx.obj = connection.Options(Settings(url, None, ca_file), profile, timeout)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code. An error is one line on stderr."""
    output.prepare()
    arguments = _normalized(sys.argv[1:] if arguments is None else arguments)
    if "--debug" not in arguments:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC would write its own lines to stderr.
    try:
        result = app(arguments, prog_name="dalston", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        output.discard(sys.stdout)
        return ExitCode.OUTPUT_CLOSED
    except typer.Abort:
        output.note("aborted")
        return ExitCode.FAILED
    except typer.TyperException as error:
        return _refuse(error)
    except (CommandError, DalstonError, OSError) as error:
        return _fail(error, arguments)
    except Exception as error:
        if "--debug" not in arguments:
            output.note("this is a bug: `dalston --debug COMMAND` shows a traceback")
        return _fail(error, arguments)
    return result if isinstance(result, int) else ExitCode.OK


def _normalized(arguments: Sequence[str]) -> list[str]:
    """Converts underscores in option names, as other speech programs spell them: `--output_format`."""
    normalized: list[str] = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*normalized, *arguments[number:]]
        name, equals, value = argument.partition("=")
        normalized.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    return normalized


def _refuse(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage: "):  # No command was given; the message is the help.
        sys.stderr.write(f"{message}\n")
    else:
        output.note(f"error: {message.replace('Value error, ', '').rstrip('.')}")
    return error.exit_code


def _fail(error: Exception, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        import traceback

        traceback.print_exception(error)
    output.note(f"error: {describe(error)}")
    return exit_code_of(error)
