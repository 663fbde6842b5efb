"""The commands of `dalston`. Nothing that calls a service is imported before a command does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dalston.cli import configuration, connection, keys, output, sessions, status, transcribe
from dalston.cli.app import App
from dalston.cli.config import Place
from dalston.cli.exits import CommandError, ExitCode, Unread, code_of, sentence_of
from dalston.errors import DalstonError

_EPILOG = """\b
Exit codes: 0 done, 1 failed, 2 the command line or a parameter is wrong,
3 not found, 4 no valid key or not allowed, 5 the service cannot be reached,
6 not now (full, limited, or the session is still active), 130 interrupted,
141 whatever read the output has left.

\b
Environment: DALSTON_URL, DALSTON_API_KEY, NO_COLOR. Configuration: see
`dalston config path`."""

app = App(
    name="dalston",
    help="Transcribe speech in real time, and work with recorded sessions.",
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=_EPILOG)(transcribe.transcribe)
app.command()(transcribe.listen)
app.command()(status.status)
app.add_typer(sessions.app, name="sessions")
app.add_typer(keys.app, name="keys")
app.add_typer(keys.tokens, name="tokens")
app.add_typer(configuration.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            output.say(f"dalston {version('dalston')}")
        except PackageNotFoundError:
            output.say("dalston (not installed)")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The service. Default: DALSTON_URL, the configuration, http://127.0.0.1:8000."
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="NAME", help="A profile of the configuration.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option(metavar="FILE", help="Certificates to trust.")] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Seconds for a call with all its attempts.")
    ] = 5.0,
    debug: Annotated[  # noqa: ARG001 - read by `run`, which catches what fails
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does all
        bool, typer.Option("--version", help="Show the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    ctx.obj = connection.Options(Place(url, None, ca_file), profile, timeout)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code. What fails is told in one line on stderr."""
    output.prepare()
    arguments = _spelled(sys.argv[1:] if arguments is None else arguments)
    if "--debug" not in arguments:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # It would write its own lines to stderr.
    try:
        result = app(arguments, prog_name="dalston", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (Unread, BrokenPipeError):
        output.forget(sys.stdout)
        return ExitCode.UNREAD
    except typer.Abort:
        output.note("nothing was done")
        return ExitCode.FAILED
    except typer.TyperException as error:
        return _refuse(error)
    except (CommandError, DalstonError, OSError) as error:
        return _fail(error, arguments)
    except Exception as error:
        if "--debug" not in arguments:
            output.note("this is a bug of the command: --debug before the command shows more")
        return _fail(error, arguments)
    return result if isinstance(result, int) else ExitCode.OK


def _spelled(arguments: Sequence[str]) -> list[str]:
    """Options as they are called here: `--output_format` of other programs for speech is `--output-format`."""
    spelled: list[str] = []
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*spelled, *arguments[number:]]
        name, equals, value = argument.partition("=")
        spelled.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    return spelled


def _refuse(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage: "):  # Nothing was asked for: this is the help.
        sys.stderr.write(f"{message}\n")
    else:
        output.note(f"error: {message.replace('Value error, ', '').rstrip('.')}")
    return error.exit_code


def _fail(error: Exception, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        import traceback

        traceback.print_exception(error)
    output.note(f"error: {sentence_of(error)}")
    return code_of(error)
