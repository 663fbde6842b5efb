"""Who the parts run as when the stack is started by root, as in a container: a user that owns what they keep and has
no right to anything else."""

import errno
import os
import pwd
import stat
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from stack.errors import CannotStart

_NAME = "dalston"
"""The user, on a machine that has one of this name."""
# Numbers that neither distributions nor systemd give to anybody; within what rootless containers have.
_FIRST, _COUNT = 60578, 606


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to run as."""

    uid: int
    gid: int
    keep: tuple[str, ...] = ()
    """Rights of root that are kept, as `stack/tether.py` names them: `search` where a folder on the way is closed to
    this user (a project below /root has its programs and data there), `bind` for a port below 1024."""

    def reaching(self, *paths: Path) -> "Identity":
        """The same, with the right to pass through closed folders if one of `paths` cannot be read without it."""
        return self if self.reads(*paths) else replace(self, keep=(*self.keep, "search"))

    def reads(self, *paths: Path) -> bool:
        """Whether all of `paths` can be read."""
        return "search" in self.keep or all(_reads(path, self.uid, self.gid) for path in paths)

    def binding(self, port: int) -> "Identity":
        """The same, with the right to listen on `port`."""
        return self if port >= _first_unprivileged_port() else replace(self, keep=(*self.keep, "bind"))


def unprivileged(folder: Path) -> Identity | None:
    """Who the programs that keep their data in `folder` run as, or None when we are not root ourselves.

    The owner of the folder: it may be an ordinary user's, who goes on with it tomorrow. For one that is root's or new
    the user `dalston` where there is one, or else a number that is nobody's and always the same for a folder. `nobody`
    is not nobody: other services run as it too.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and (status := folder.stat()).st_uid not in (0, _uid_of_nobody()):
        return Identity(status.st_uid, status.st_gid)
    try:
        entry = pwd.getpwnam(_NAME)
    except KeyError:
        number = _FIRST + zlib.crc32(os.fsencode(folder.resolve())) % _COUNT
        return Identity(number, number)
    return Identity(entry.pw_uid, entry.pw_gid)


def nobody() -> Identity:
    """A user with a name, which some programs want theirs to have.

    Raises:
        CannotStart: there is none.
    """
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart("there is no user `nobody`, as which root creates the data of Postgres") from None
    return Identity(entry.pw_uid, entry.pw_gid)


def _uid_of_nobody() -> int | None:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return None


def own(folder: Path, identity: Identity | None) -> None:
    """Makes `folder`, if it is not there, its user's alone, with all that is in it.

    What is in it is looked at when the folder is not private yet, as those of earlier versions.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        # One of the parts may have put it there, for root to give it what it leads to.
        raise OSError(errno.ENOTDIR, "it is a link where a folder should be", str(folder))
    uid, gid = (os.geteuid(), os.getegid()) if identity is None else (identity.uid, identity.gid)
    if _is_private(folder, uid):
        return
    for path, folders, files in os.walk(folder):
        for name in files:
            _give(Path(path, name), uid, gid, 0o600)
        for name in folders:
            _give(Path(path, name), uid, gid, 0o700)
    # The folder itself last: a walk that was cut short is begun again.
    _give(folder, uid, gid, 0o700)


def give(path: Path, identity: Identity | None) -> None:
    """Makes a file that we wrote `identity`'s."""
    if identity is not None:
        # Of a link itself: it may be planted by one of the parts, whose folder this is in.
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def _is_private(path: Path, uid: int) -> bool:
    status = path.stat()
    return status.st_uid == uid and not status.st_mode & 0o077


def _give(path: Path, uid: int, gid: int, mode: int) -> None:
    status = path.lstat()
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        path.chmod(mode)


def _reads(path: Path, uid: int, gid: int) -> bool:
    """Whether this user may read `path`, as far as there is one, and enter every folder above it."""
    path = path.resolve()
    for each in (path, *path.parents):
        if not each.exists():
            continue
        status = each.stat()
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        needed = stat.S_IROTH if each == path and not each.is_dir() else stat.S_IXOTH
        if not status.st_mode >> shift & needed:
            return False
    return True


def _first_unprivileged_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
