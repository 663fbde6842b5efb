"""The operator's own commands, which need the server's packages and its database, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from dalston.cli.exits import CommandError


def run(module: str, arguments: Sequence[str]) -> int:
    """Runs a module; gives its exit code. It writes where this process does.

    Raises:
        CommandError: it is not installed.
    """
    return subprocess.run(_command(module, arguments), check=False).returncode


def answer(module: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs a module; gives its exit code and what it wrote to stdout.

    Raises:
        CommandError: it is not installed.
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
            "this needs the server's packages and DALSTON_DATABASE_URL: run it where a server is installed, "
            f"there it is also python -m {module}"
        )
    return [sys.executable, "-m", module, *arguments]
