"""The folder of all files of a stack, and the lock that allows one stack to use it at a time."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import CannotStart
from stack.identity import Identity, make_private, unprivileged
from stack.logs import rotate

_LEAST_FREE_BYTES = 500 * 1024 * 1024
# The path of a Unix socket has at most 107 characters; so many of them are for its name.
_SOCKETS_PATH_BYTES = 107 - 27
_SOCKETS_PREFIX = "dalston-"


@dataclass(frozen=True, slots=True)
class Home:
    """Places below DALSTON_HOME."""

    path: Path

    @property
    def spool(self) -> Path:
        """Audio that is not in S3 yet."""
        return self.path / "spool"

    @property
    def scratch(self) -> Path:
        """Temporary files of the worker."""
        return self.path / "worker"

    @property
    def identity(self) -> Identity | None:
        """The user that the parts run as; None for the user that starts them."""
        return unprivileged(self.path)

    def socket(self, name: str) -> Path:
        """A Unix socket that only the parts and the user that started them can open."""
        folder = self.path / "run"
        return (folder.readlink() if folder.is_symlink() else folder) / f"{name}.sock"

    def data(self, part: str) -> Path:
        """The data of a part, which it uses again at the next start."""
        return self.path / part

    def log(self, part: str) -> Path:
        """The log of a part; older files, also of earlier starts, are beside it and end in `.1` and up."""
        return self.path / "logs" / f"{part}.log"


@contextmanager
def locked_home(path: Path) -> Iterator[Home]:
    """Creates the folder if necessary, and locks it against other stacks while the block runs.

    Raises:
        CannotStart: it cannot be written to, is full, or another stack uses it.
    """
    path = path.expanduser().resolve()
    try:
        _make(path)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"cannot write to {path}: {error.strerror}. Set DALSTON_HOME to a folder that can be written to."
        ) from error
    try:
        _lock(handle, path)
        _check_space(path)
        home = Home(path)
        _prepare(home)
        try:
            yield home
        finally:
            _remove_sockets(path / "run")
    finally:
        os.close(handle)


def _make(path: Path) -> None:
    """Creates the folder. One that is not empty keeps its mode, as it may have other uses."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(path.iterdir()):
        # Root keeps its folder, so that no part can replace the files that root writes to. The parts may enter it.
        path.chmod(0o700 if unprivileged(path) is None else 0o711)


def _prepare(home: Home) -> None:
    """Makes the folders private, and rotates the logs of the start before."""
    try:
        logs = home.log("any").parent
        # The user that starts the stack writes them. An ordinary user can read them even after a start by root.
        is_of_root = home.path.stat().st_uid == 0
        make_private(logs, None if is_of_root else home.identity)
        for log in logs.glob("*.log"):
            if log.stat().st_size:
                rotate(log)
        make_private(home.spool, home.identity)
        make_private(home.scratch, home.identity)
        _remove_sockets(home.path / "run")
        _make_sockets(home.path / "run", home.identity)
    except OSError as error:
        raise CannotStart(f"cannot use {error.filename or home.path}: {error.strerror}") from error


def _make_sockets(folder: Path, identity: Identity | None) -> None:
    """Creates the folder of the sockets; if its path is too long for them, a short one that it links to."""
    if len(os.fsencode(folder)) > _SOCKETS_PATH_BYTES:
        short = Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX))
        make_private(short, identity)
        folder.symlink_to(short)
    else:
        make_private(folder, identity)


def _remove_sockets(folder: Path) -> None:
    """Also those of a stack that was killed."""
    if folder.is_symlink():
        target = folder.readlink()
        folder.unlink()
        if target.name.startswith(_SOCKETS_PREFIX):
            shutil.rmtree(target, ignore_errors=True)
    elif folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 20, 0).decode().strip() or "unknown"
        raise CannotStart(
            f"another stack (process {owner}) is running on {path}. Stop it, or set DALSTON_HOME to another folder."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def _check_space(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < _LEAST_FREE_BYTES:
        raise CannotStart(
            f"only {free // 2**20} MiB are free on the disk of {path}, and {_LEAST_FREE_BYTES // 2**20} are needed. "
            "Free some, or set DALSTON_HOME to a folder on another disk."
        )
