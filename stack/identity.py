"""Who a part runs as when the stack is started by root, as in a container."""

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stack.errors import CannotStart


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to run as."""

    uid: int
    gid: int
    search: bool = False
    """Whether it may pass through folders that are closed to it: a project below /root (mode 0700) has its programs
    and data there."""


def unprivileged(folder: Path, reads: Iterable[Path]) -> Identity | None:
    """Who a program that refuses to be root runs as, or None when we are not root ourselves.

    Args:
        folder: the program's data. Its owner, unless that is root, stays its owner; a folder that does not exist yet
            will belong to `nobody`.
        reads: other paths the program opens.

    Raises:
        CannotStart: there is no user to become.
    """
    if os.geteuid() != 0:
        return None
    uid = folder.stat().st_uid if folder.exists() else 0
    try:
        entry = pwd.getpwuid(uid) if uid != 0 else pwd.getpwnam("nobody")
    except KeyError:
        if uid == 0:
            raise CannotStart("Postgres does not run as root, and there is no user `nobody` to run it as") from None
        return Identity(uid, uid, search=True)
    closed = any(not _reaches(path, entry.pw_uid, entry.pw_gid) for path in (folder, *reads))
    return Identity(entry.pw_uid, entry.pw_gid, search=closed)


def _reaches(path: Path, uid: int, gid: int) -> bool:
    """Whether every folder above `path` lets this user pass."""
    for parent in path.resolve().parents:
        if not parent.exists():
            continue
        status = parent.stat()
        if status.st_uid == uid:
            bit = 0o100
        elif status.st_gid == gid:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return False
    return True
