"""The two commands, and their error messages."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import urlsplit

from rich.console import Console

from stack.demo import demo
from stack.errors import CannotStart, Interrupted, StackError
from stack.interruption import Interruption
from stack.parts import Programs
from stack.progress import Terminal
from stack.settings import ROOT, StackSettings
from stack.supervisor import Stack, running_stack
from telemetry.settings import InvalidSettings, read_settings
from telemetry.variables import unknown_variables

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130

_DESCRIPTION = "The local stack: Postgres, S3, server, worker, bridge, uploads and Envoy as one process tree."
_EPILOGUE = (
    "Settings come from the environment: DALSTON_PORT (8000), DALSTON_HOST (127.0.0.1), DALSTON_HOME (.dalston in the "
    "checkout), DALSTON_AUTH (none), DALSTON_TLS_CERT and DALSTON_TLS_KEY, DALSTON_DATABASE_URL and "
    "DALSTON_S3_ENDPOINT_URL or DALSTON_S3_BUCKET to use external ones."
)


def run(arguments: Sequence[str], interruption: Interruption, programs: Programs | None = None) -> int:
    """Runs a command and returns the exit code."""
    commands: dict[str, Callable[[_Session], int]] = {"up": _up, "demo": _demo}
    parser = argparse.ArgumentParser(prog="python -m stack", description=_DESCRIPTION, epilog=_EPILOGUE)
    parser.add_argument("command", choices=commands, help="`up`: run until Ctrl-C; `demo`: stream the sample and stop")
    command = commands[parser.parse_args(arguments).command]
    console, complaints = Console(), Console(stderr=True)
    for name, near in unknown_variables().items():
        hint = f"; did you mean {near}?" if near else ""
        _print(complaints, f"warning: {name} is no setting and is ignored{hint}", "yellow")
    try:
        return command(_Session(read_settings(StackSettings), interruption, console, programs))
    except Interrupted:
        complaints.print("interrupted")
        return EXIT_INTERRUPTED
    except InvalidSettings as error:
        _complain(complaints, str(error))
        return EXIT_CONFIGURATION
    except StackError as error:
        _complain(complaints, str(error))
        return EXIT_FAILED
    except OSError as error:
        _complain(complaints, f"{error.strerror}: {error.filename}" if error.filename else str(error))
        return EXIT_FAILED


def _complain(console: Console, sentence: str) -> None:
    _print(console, f"error: {sentence}", "red")


def _print(console: Console, sentence: str, style: str) -> None:
    console.print(sentence, style=style, highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Session:
    """The settings and the console of a command."""

    settings: StackSettings
    interruption: Interruption
    console: Console
    programs: Programs | None

    def start(self) -> AbstractContextManager[Stack]:
        return running_stack(
            self.settings,
            pause=self.interruption.pause,
            progress=Terminal(self.console),
            programs=self.programs,
        )


def _up(session: _Session) -> int:
    with session.start() as stack:
        _print_addresses(stack, session.settings, session.console)
        try:
            stack.watch(session.interruption.pause)
        except Interrupted:
            session.console.print("\nstopping; Ctrl-C again to stop at once")
    return 0


def _demo(session: _Session) -> int:
    if session.settings.auth != "none" or session.settings.tls_cert is not None:
        raise CannotStart("the demo is without keys and without TLS: unset DALSTON_AUTH and DALSTON_TLS_CERT")
    # No live session needs the machine while the batch job runs.
    os.environ.setdefault("DALSTON_WORKER_PRIORITY", "normal")
    with session.start() as stack:
        demo(stack, session.interruption.pause, session.console)
        console_url = stack.console_url
    session.console.print(
        "\nNext: [bold]make up[/bold] runs the same stack until Ctrl-C, with the session just recorded."
    )
    if console_url is not None:
        session.console.print(f"Then see it in a browser: {console_url}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _print_addresses(stack: Stack, settings: StackSettings, console: Console) -> None:
    here = f"{stack.public_name}:{stack.port}"
    secure = "s" if stack.is_encrypted else ""
    lines = [
        ("console", stack.console_url or "off"),
        ("WebSocket", f"ws{secure}://{here}/v1/audio/transcriptions/stream"),
        ("REST", f"http{secure}://{here}/v1/realtime/sessions"),
        ("gRPC", f"{here} ({'TLS' if secure else 'h2c'}, gRPC-Web, reflection)"),
        ("metrics", f"curl {stack.metrics}" if stack.metrics else "off"),
        ("Postgres", _without_password(stack.database_url) if settings.database_url is None else "as configured"),
        ("S3", f"{stack.s3.endpoint_url}, bucket {stack.s3.bucket}" if stack.s3 else "as configured"),
        ("data, logs", str(stack.home.path)),
    ]
    console.print("\nThe stack is up. Ctrl-C stops it.\n")
    for name, value in lines:
        console.print(f"  {name:<11} {value}", highlight=False, markup=False, soft_wrap=True)
    for line in _first_steps(stack, settings, f"{secure}://{here}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _without_password(url: str) -> str:
    """The printed address ends up in the logs of the program that runs the stack."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}").geturl()


def _first_steps(stack: Stack, settings: StackSettings, here: str) -> list[str]:
    """The first commands to type; `here` is the address without the first letters of its scheme."""
    header = ""
    steps = []
    if settings.auth == "keys":
        header = ' -H "Authorization: Bearer $KEY"'
        here_only = settings.database_url is None and stack.home.path != ROOT / ".dalston"
        database = f"DALSTON_HOME={shlex.quote(str(stack.home.path))} " if here_only else ""
        make = "-m persistence.access create-key --tenant default --name first"
        scopes = "--scopes admin,realtime,sessions:read,sessions:write"
        steps = ["", f"A first key: {database}{sys.executable} {make} {scopes}"]
    stream = f'"ws{here}/v1/audio/transcriptions/stream?store_audio=true&store_transcript=true"'
    return [*steps, "", f"Try: wscat{header} -c {stream}", f"     curl{header} http{here}/v1/realtime/sessions", ""]
