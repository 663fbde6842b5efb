"""Takes all rights from the process that calls it. Linux only; used by the child that decodes.

What is not available (an old kernel, a container that forbids it) is omitted, and the caller learns what was applied.
The limits of `setrlimit` always apply.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from typing import Final

ISOLATION: Final = frozenset({"descriptors", "network", "system_calls"})
"""All that `isolate` can apply: no file can be opened, there is no network, only the calls of decoding are allowed."""

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000

_ALLOWED_CALLS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
        "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25, "madvise": 28,
        "getpid": 39, "exit": 60, "gettimeofday": 96, "sigaltstack": 131, "gettid": 186, "futex": 202,
        "sched_getaffinity": 204, "clock_gettime": 228, "exit_group": 231, "getrandom": 318,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215,
        "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124, "mremap": 216,
        "madvise": 233, "getpid": 172, "exit": 93, "gettimeofday": 169, "sigaltstack": 132, "gettid": 178, "futex": 98,
        "sched_getaffinity": 123, "clock_gettime": 113, "exit_group": 94, "getrandom": 278,
    },
}  # fmt: skip
"""What decoding needs: memory, time, and the files that are open already. Everything else fails with EPERM."""
_AUDIT_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_RET_KILL: Final = 0x80000000
_RET_EPERM: Final = 0x00050001
_RET_ALLOW: Final = 0x7FFF0000
_LOAD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_EQUAL: Final = 0x35
_RETURN: Final = 0x06
_X32_CALLS: Final = 0x40000000


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one process, in bytes and seconds of CPU time."""

    memory_bytes: int
    file_bytes: int
    """Largest file that it may write."""
    cpu_seconds: int
    """At the start; the parent raises it with `prlimit`."""
    max_cpu_seconds: int


def die_with_parent(parent: int) -> None:
    """Has the kernel end this process when the thread that started it ends; ends it now if `parent` is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit(limits: ProcessLimits) -> None:
    """Applies limits of memory, CPU time, sizes of files, and processes. No core is dumped."""
    for which, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.max_cpu_seconds),
    ):
        _lower(which, soft, hard)
    # A core is also dumped into a pipe whatever RLIMIT_CORE is, and other processes of the user may attach.
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def isolate() -> list[str]:
    """Takes network, files, processes and all system calls but those of decoding. Returns what could be applied.

    Nothing can be imported or opened afterwards.
    """
    applied = ["descriptors"]
    if _leave_network():
        applied.append("network")
    _lower(resource.RLIMIT_NOFILE, 0, 0)
    _lower(resource.RLIMIT_NPROC, 0, 0)
    if _filter_calls():
        applied.append("system_calls")
    return applied


def _lower(which: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(which)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(which, (soft, hard))


def _leave_network() -> bool:
    """Enters a network namespace without interfaces; without privileges by way of a user namespace."""
    return any(_LIBC.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _filter_calls() -> bool:
    """Installs a seccomp filter that allows `_ALLOWED_CALLS` only."""
    machine = platform.machine()
    if machine not in _ALLOWED_CALLS or struct.calcsize("P") != 8:
        return False
    code = _filter_program(_AUDIT_ARCHITECTURES[machine], sorted(_ALLOWED_CALLS[machine].values()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def _filter_program(architecture: int, allowed: list[int]) -> bytes:
    """A program of the Berkeley packet filter over `struct seccomp_data`."""

    def step(code: int, value: int, on_true: int = 0, on_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, on_true, on_false, value)

    count = len(allowed)
    return b"".join(
        [
            step(_LOAD, 4),  # the architecture
            step(_JUMP_EQUAL, architecture, 1, 0),
            step(_RETURN, _RET_KILL),
            step(_LOAD, 0),  # the number of the call
            step(_JUMP_GREATER_EQUAL, _X32_CALLS, count, 0),
            *(step(_JUMP_EQUAL, number, count - index, 0) for index, number in enumerate(allowed)),
            step(_RETURN, _RET_EPERM),
            step(_RETURN, _RET_ALLOW),
        ]
    )
