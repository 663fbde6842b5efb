"""Becomes another program that dies with its parent and, if asked, runs as another user.

Started by path, as a program of its own, before the real one: doing this between fork and exec instead would run
Python in the forked copy of a process that may have threads (gRPC has), where it can deadlock.

    python -I -S tether.py PARENT_PID SIGNAL UID GID SEARCH COMMAND [ARGUMENT ...]

PARENT_PID, SIGNAL: send SIGNAL when the process PARENT_PID has ended (Linux only; elsewhere nothing happens).
UID, GID: become this user first; -1 for neither.
SEARCH: 1 to keep the right to pass through folders that are closed to that user, such as /root; else 0.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
# The second is the wider one; it is what a container has by default.
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become(libc: ctypes.CDLL, uid: int, gid: int, search: bool) -> None:
    """Changes the user for good. Everything root may do is lost, but for `search`."""
    if search:
        # Capabilities outlive the change of user, and count in access(2) too, by which Postgres looks at its files.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if search:
        keep_search(libc)


def keep_search(libc: ctypes.CDLL) -> None:
    """Narrows the kept capabilities to one and lets it pass through exec."""
    header = _Header(CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    libc.capget(ctypes.byref(header), sets)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        bit = 1 << capability
        if not sets[0].permitted & bit:
            continue
        narrowed = (_Sets * 2)(_Sets(bit, bit, bit), _Sets(0, 0, 0))
        if libc.capset(ctypes.byref(header), narrowed) == 0 and (
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0
        ):
            return
    sys.exit(
        "the project or its data lies in a folder closed to other users, such as /root, and this root may not let a "
        "program pass through it: move the project, for instance to /opt"
    )


def main(arguments: list[str]) -> None:
    parent, signal_number, uid, gid, search = (int(argument) for argument in arguments[:5])
    command = arguments[5:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        become(libc, uid, gid, bool(search))
    if sys.platform == "linux":
        # After the change of user, which clears it.
        libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            return
    try:
        os.execv(command[0], command)  # noqa: S606 - without a shell is what we want
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
