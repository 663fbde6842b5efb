"""Exit codes and error messages of the command."""

from __future__ import annotations

from enum import IntEnum

from dalston import errors


class ExitCode(IntEnum):
    """Documented in `--help` and stable."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNAVAILABLE = 5
    NOT_NOW = 6
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    """The code of a program that SIGPIPE terminates."""


# The first match applies.
_CODES: tuple[tuple[type[errors.DalstonError], ExitCode], ...] = (
    (errors.InvalidRequest, ExitCode.USAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.AuthenticationError, ExitCode.NOT_ALLOWED),
    (errors.PermissionDenied, ExitCode.NOT_ALLOWED),
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.ConnectionLost, ExitCode.UNAVAILABLE),
    (errors.Busy, ExitCode.NOT_NOW),
    (errors.SessionActive, ExitCode.NOT_NOW),
    (errors.JobActive, ExitCode.NOT_NOW),
    (errors.JobRunning, ExitCode.NOT_NOW),
)


class CommandError(Exception):
    """A command failed. The text is a sentence for users."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class OutputClosed(Exception):
    """The reader of standard output has closed it."""


def usage(message: str) -> CommandError:
    """The error for an invalid command line."""
    return CommandError(message, ExitCode.USAGE)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def describe(error: BaseException) -> str:
    """The error as one line for users."""
    if isinstance(error, errors.AuthenticationError):
        return f"{error}; set the key in DALSTON_API_KEY or the configuration file"
    if isinstance(error, errors.Busy) and error.retry_after is not None:
        return f"{error}; try again in {error.retry_after:g} s"
    if isinstance(error, errors.ConnectionLost) and error.session_id:
        return f"{error} (session {error.session_id})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
