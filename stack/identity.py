"""The user that the parts run as when root starts the stack, as in a container: it owns their data and has no other
rights."""

import errno
import os
import pwd
import stat
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from stack.errors import CannotStart

_NAME = "dalston"
"""The user, if the machine has one of this name."""
# Numbers that neither distributions nor systemd assign to users; within the range of rootless containers.
_FIRST, _COUNT = 60578, 606


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to run as."""

    uid: int
    gid: int
    keep: tuple[str, ...] = ()
    """Rights of root that are kept, by their names in `stack/tether.py`: `search` if a folder of the path is closed to
    this user (for example the programs and data of a project below /root), `bind` for a port below 1024."""

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
    """The user that programs with data in `folder` run as, or None if this process does not run as root.

    It is the owner of the folder, so that an ordinary user can continue to use it. For a folder that is new or root's
    it is the user `dalston` if it exists, or else an unassigned number that is always the same for a folder. It is
    never `nobody`, because other services run as `nobody` too.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and (status := folder.stat()).st_uid not in (0, _uid_of_shared_user()):
        return Identity(status.st_uid, status.st_gid)
    try:
        entry = pwd.getpwnam(_NAME)
    except KeyError:
        number = _FIRST + zlib.crc32(os.fsencode(folder.resolve())) % _COUNT
        return Identity(number, number)
    return Identity(entry.pw_uid, entry.pw_gid)


def named_user() -> Identity:
    """The user `nobody`, for programs whose user must have a name.

    Raises:
        CannotStart: it does not exist.
    """
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart("there is no user `nobody`, as which root creates the data of Postgres") from None
    return Identity(entry.pw_uid, entry.pw_gid)


def _uid_of_shared_user() -> int | None:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return None


def make_private(folder: Path, identity: Identity | None) -> None:
    """Creates `folder` if it does not exist, and makes it and its content private to its user.

    The content is changed only if the folder is not private yet, as folders of earlier versions are not.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        # One of the parts may have made the link, so that root would make its target the part's.
        raise OSError(errno.ENOTDIR, "it is a link where a folder should be", str(folder))
    uid, gid = (os.geteuid(), os.getegid()) if identity is None else (identity.uid, identity.gid)
    if _is_private(folder, uid):
        return
    for path, folders, files in os.walk(folder):
        for name in files:
            _set_owner_and_mode(Path(path, name), uid, gid, 0o600)
        for name in folders:
            _set_owner_and_mode(Path(path, name), uid, gid, 0o700)
    # The folder itself comes last, so that an interrupted walk starts again.
    _set_owner_and_mode(folder, uid, gid, 0o700)


def change_owner(path: Path, identity: Identity | None) -> None:
    """Makes `identity` the owner of a file that this process wrote."""
    if identity is not None:
        # A link is not followed: one of the parts may have planted it in its folder.
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def _is_private(path: Path, uid: int) -> bool:
    status = path.stat()
    return status.st_uid == uid and not status.st_mode & 0o077


def _set_owner_and_mode(path: Path, uid: int, gid: int, mode: int) -> None:
    status = path.lstat()
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        path.chmod(mode)


def _reads(path: Path, uid: int, gid: int) -> bool:
    """Whether this user may read `path`, as far as it exists, and enter every folder above it."""
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
