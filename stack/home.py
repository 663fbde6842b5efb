"""The folder in which a stack keeps everything, and the lock that lets one stack use it at a time."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import CannotStart
from stack.identity import Identity, own, unprivileged
from stack.logs import rotate

_LEAST_FREE_BYTES = 500 * 1024 * 1024
# The path of a Unix socket may have no more than 107 characters; this many are for its name.
_SOCKETS_PATH_BYTES = 107 - 27
_SOCKETS_PREFIX = "dalston-"


@dataclass(frozen=True, slots=True)
class Home:
    """Places below DALSTON_HOME."""

    path: Path

    @property
    def spool(self) -> Path:
        """Audio on its way to S3."""
        return self.path / "spool"

    @property
    def identity(self) -> Identity | None:
        """Who the parts run as; None for whoever starts them."""
        return unprivileged(self.path)

    def socket(self, name: str) -> Path:
        """A Unix socket that only the parts and whoever started them can open."""
        folder = self.path / "run"
        return (folder.readlink() if folder.is_symlink() else folder) / f"{name}.sock"

    def data(self, part: str) -> Path:
        """What a part keeps for the next time."""
        return self.path / part

    def log(self, part: str) -> Path:
        """What a part says; what is older, that of the start before too, is beside it, ending in `.1` and up."""
        return self.path / "logs" / f"{part}.log"


@contextmanager
def occupied(path: Path) -> Iterator[Home]:
    """Makes the folder if need be and keeps other stacks out of it while the block runs.

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
    """A folder that holds something stays as open as it is: it may be there for more. Those in it are not."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(path.iterdir()):
        # Root's stays root's, so that no part can put something else in the place of what root writes to; the parts
        # pass through it.
        path.chmod(0o700 if unprivileged(path) is None else 0o711)


def _prepare(home: Home) -> None:
    """Makes the folders private and sets aside what was logged before."""
    try:
        logs = home.log("any").parent
        # Written by who starts the stack. An ordinary user reads his own even after root has started it once.
        is_of_root = home.path.stat().st_uid == 0
        own(logs, None if is_of_root else home.identity)
        for log in logs.glob("*.log"):
            if log.stat().st_size:
                rotate(log)
        own(home.spool, home.identity)
        _remove_sockets(home.path / "run")
        _make_sockets(home.path / "run", home.identity)
    except OSError as error:
        raise CannotStart(f"cannot use {error.filename or home.path}: {error.strerror}") from error


def _make_sockets(folder: Path, identity: Identity | None) -> None:
    """Makes the folder of the sockets; where its path is too long for them, a short one that it leads to."""
    if len(os.fsencode(folder)) > _SOCKETS_PATH_BYTES:
        short = Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX))
        own(short, identity)
        folder.symlink_to(short)
    else:
        own(folder, identity)


def _remove_sockets(folder: Path) -> None:
    """Also what a stack left that was killed."""
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
