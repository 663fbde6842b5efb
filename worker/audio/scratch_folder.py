"""A folder for the temporary files of this process, and the removal of those that killed workers left."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "worker-"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, which is locked while the block runs and removed at its end.

    Folders whose process has ended without removing them are removed at the beginning.

    Raises:
        OSError: `parent` cannot be written to.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in parent.glob(f"{_PREFIX}*"):
        if (handle := _lock(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    handle = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """The open folder, or None if another process has locked or removed it. Its end releases the lock."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
