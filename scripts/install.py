"""Makes `.venv` and installs this repository into it: `python3 scripts/install.py stack`, or `dev`, by `lock/NAME.txt`.

Every file that is fetched is compared with the hashes in the lock, and none is built here. The script needs nothing but
Python. The output of pip goes to `.venv/install.log`; this script prints a line for each step that takes long, and one
sentence for an error.
"""

from __future__ import annotations  # an old Python must get as far as the message about it

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
LOCK = ROOT / "lock"
OWN = ["sdk", "."]
LEAST_PYTHON = (3, 11)

# Prints the dependencies of torch; those of a CUDA build are not in the locks that all machines use.
TORCH_NEEDS = "from importlib.metadata import requires; print(*requires('torch') or (), sep='\\n')"

# A pattern in the output of pip -> the error message; the first match counts.
FAILURES = [
    (r"No space left on device|Errno 28", f"the disk of {ROOT} is full"),
    (
        (
            r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|Connection refused"
            r"|Network is unreachable|ConnectTimeout|ReadTimeout|Cannot connect to proxy|Could not fetch URL"
        ),
        "the package index cannot be reached: is there a network, and does pip know the proxy or mirror to use?",
    ),
    (r"Permission denied|Errno 13", f"{VENV} cannot be written to"),
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded file is not the one that was locked, and nothing was installed; SECURITY.md explains this",
    ),
]


class CannotInstall(Exception):
    """The message is one sentence for the person at the terminal."""


class NotOffered(CannotInstall):
    """No index has the package."""


def main(locks: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        make_venv()
        (lock,) = locks
        install(lock)
    except CannotInstall as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next run continues from here", file=sys.stderr)
        return 130
    return 0


def make_venv() -> None:
    """Makes `.venv` unless a working one is there."""
    if PYTHON.exists():
        least = f"import sys; sys.exit(sys.version_info < {LEAST_PYTHON})"
        if quiet([PYTHON, "-c", least]) and quiet([PYTHON, "-m", "pip", "--version"]):
            return
    if sys.version_info < LEAST_PYTHON:
        raise CannotInstall(
            f"Python 3.11 or later is needed and {sys.executable} is {sys.version.split()[0]}; "
            "name another with `make PYTHON=python3.12 ...`"
        )
    if not quiet([sys.executable, "-c", "import venv, ensurepip"]):
        raise CannotInstall("this Python lacks its venv module; on Debian and Ubuntu: apt install python3-venv")
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
        raise CannotInstall(f"{VENV} is in the way: it is no virtual environment")
    print(f"making {VENV}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    output: list[str] = []
    complete = False
    try:
        complete = run([sys.executable, "-m", "venv", VENV], output.append) == 0
    finally:
        if not complete:
            # The next run could take an incomplete one for a complete one.
            shutil.rmtree(VENV, ignore_errors=True)
    if not complete:
        raise CannotInstall(explain("".join(output)))


def quiet(command: list[object]) -> bool:
    return run(command, [].append) == 0


def install(lock: str) -> None:
    """Runs pip, and prints its slow steps."""
    print(f"installing what lock/{lock}.txt lists; the first time this takes minutes", flush=True)
    began = time.monotonic()
    locked = ["--require-hashes", "--only-binary=:all:"]
    with LOG.open("w") as log:
        with suppress(NotOffered):
            pip(log, *locked, "-r", LOCK / "torch-cpu.txt")
        pip(log, *locked, "-r", LOCK / f"{lock}.txt")
        if needs_cuda():
            pip(log, *locked, "-r", LOCK / "cuda.txt")
        # The build dependencies of these two are installed by now, from the lock.
        pip(log, "--no-build-isolation", *(word for path in OWN for word in ("-e", path)))
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)


def pip(log: TextIO, *words: object) -> None:
    """Installs the given packages without their dependencies; the locks list all that is needed.

    Raises:
        NotOffered: no index that pip knows has a package of that version.
        CannotInstall: pip failed otherwise.
    """
    output: list[str] = []

    def take(line: str) -> None:
        output.append(line)
        log.write(line)
        print_progress(line)

    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=3", "--no-deps"]
    if run([PYTHON, "-m", "pip", "install", *options, *words], take) != 0:
        sentence = explain("".join(output))
        # The second message appears if a constraint of the user names the same package.
        offered = not re.search(r"No matching distribution|ResolutionImpossible", sentence)
        failure = CannotInstall if offered else NotOffered
        raise failure(f"{sentence}\n  the output of pip: {LOG}")


def needs_cuda() -> bool:
    """Whether the installed torch needs the packages in `lock/cuda.txt`."""
    output: list[str] = []
    run([PYTHON, "-c", TORCH_NEEDS], output.append)
    return any(re.match(r"nvidia-|cuda-|triton\b", line) and "extra ==" not in line for line in output)


def run(command: list[object], take: Callable[[str], None]) -> int:
    """Runs a command, hands over its output line by line, and leaves no process behind when it is interrupted."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with process.stdout:
            for line in process.stdout:
                take(line)
        return process.wait()
    except BaseException:
        # And its children: pip runs pip to build, venv runs pip to install pip.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def print_progress(line: str) -> None:
    """Prints the steps that take minutes: large downloads, and the unpacking at the end."""
    if match := re.match(r"\s*Downloading \S*?([^/\s]+) \(([\d.]+) ([MG])B\)", line):
        if match[3] == "G" or float(match[2]) >= 5:
            print(f"  downloading {match[1]} ({match[2]} {match[3]}B)", flush=True)
    elif line.startswith("Installing collected packages"):
        print(f"  unpacking {line.count(',') + 1} packages", flush=True)


def explain(output: str) -> str:
    for pattern, sentence in FAILURES:
        if re.search(pattern, output):
            return sentence
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return (errors[-1] if errors else "pip failed").removeprefix("ERROR: ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
