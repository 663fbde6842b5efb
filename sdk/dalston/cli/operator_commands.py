"""Runs operator commands, which need the server's packages and its database, in a separate process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from dalston.cli.exits import CommandError


def run(module: str, arguments: Sequence[str]) -> int:
    """Runs a module with this process's standard streams. Returns its exit code.

    Raises:
        CommandError: the module is not installed.
    """
    return subprocess.run(_command(module, arguments), check=False).returncode


def answer(module: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs a module. Returns its exit code and its standard output.

    Raises:
        CommandError: the module is not installed.
    """
    done = subprocess.run(_command(module, arguments), check=False, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    try:
        is_here = find_spec(module) is not None
    except ImportError:
        is_here = False
    if not is_here:
        raise CommandError(
            "this command requires the server's packages and DALSTON_DATABASE_URL: run it, or "
            f"`python -m {module}`, where a server is installed"
        )
    return [sys.executable, "-m", module, *arguments]
