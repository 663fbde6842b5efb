"""Becomes another program that dies with its parent and, if asked, runs as another user.

Started by path, as a program of its own, before the real one: between fork and exec it would run Python in the
forked copy of a process that may have threads (gRPC has), where it can deadlock.

    python -I -S tether.py PARENT_PID SIGNAL UMASK UID GID KEEP COMMAND [ARGUMENT ...]

PARENT_PID, SIGNAL: send SIGNAL when the process PARENT_PID has ended (Linux only; elsewhere nothing happens).
UMASK: the file mode creation mask, in octal.
UID, GID: become this user first; -1 for neither.
KEEP: the rights of root to keep, separated by commas: `search`, to pass through folders that are closed to that user,
    such as /root; `bind`, to listen on ports below 1024. `-` for none.
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
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_NET_BIND_SERVICE = 10
# For each right the capabilities that grant it, the narrowest first. A container has CAP_DAC_OVERRIDE by default.
RIGHTS = {"search": (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE), "bind": (CAP_NET_BIND_SERVICE,)}
MISSING = {
    "search": "the project or its data lies in a folder closed to other users, such as /root, and this root may not "
    "let a program pass through it: move the project, for instance to /opt",
    "bind": "this root may not let a program listen on a port below 1024: choose another with DALSTON_PORT",
}


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become(libc: ctypes.CDLL, uid: int, gid: int, rights: list[str]) -> None:
    """Changes the user permanently. All rights of root are lost except `rights`."""
    if rights:
        # Capabilities survive the change of user, and apply in access(2) too, with which Postgres checks its files.
        libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    try:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    except OSError as error:
        sys.exit(
            f"this root may not run a program as user {uid}: {error.strerror}. Start the stack as an ordinary user"
        )
    if rights:
        keep(libc, rights)


def keep(libc: ctypes.CDLL, rights: list[str]) -> None:
    """Narrows the kept capabilities to those of `rights` and lets them pass through exec."""
    header = _Header(CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    libc.capget(ctypes.byref(header), sets)
    kept = []
    for right in rights:
        for capability in RIGHTS[right]:
            if sets[0].permitted & 1 << capability:
                kept.append(capability)
                break
        else:
            sys.exit(MISSING[right])
    bits = sum(1 << capability for capability in kept)
    narrowed = (_Sets * 2)(_Sets(bits, bits, bits), _Sets(0, 0, 0))
    is_kept = libc.capset(ctypes.byref(header), narrowed) == 0
    for capability in kept:
        is_kept = is_kept and libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0
    if not is_kept:
        sys.exit(MISSING[rights[0]])


def main(arguments: list[str]) -> None:
    parent, signal_number = int(arguments[0]), int(arguments[1])
    umask, uid, gid = int(arguments[2], 8), int(arguments[3]), int(arguments[4])
    rights = [] if arguments[5] == "-" else arguments[5].split(",")
    command = arguments[6:]
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(umask)
    if uid >= 0:
        become(libc, uid, gid, rights)
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
