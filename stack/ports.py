"""Loopback ports."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

# Below the range from which Linux takes the local ports of outgoing connections, which would race with these.
_LOWEST, _HIGHEST = 18000, 32000
_BLOCK = 100
_lock = threading.Lock()


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 without a listener; returned once by this process, and by no other while this one lives.

    Raises:
        OSError: none found.
    """
    with _lock:
        for port in _ours:
            if is_free("127.0.0.1", port):
                return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST}")


def _own_ports() -> Iterator[int]:
    """The ports of one block after another; each block is used by this process only."""
    blocks = list(range(_LOWEST, _HIGHEST, _BLOCK))
    random.shuffle(blocks)
    return (port for first in blocks if _take(first) for port in range(first, first + _BLOCK))


def _take(block: int) -> bool:
    """Reserves a block for this process until it ends; False if another process has it.

    Between choosing a port and listening on it another stack could choose the same. An abstract socket name has one
    owner, ends with its process, and has the scope of the ports: this network namespace.
    """
    owner = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        owner.bind(f"\0dalston-ports-{block}")
    except OSError:
        owner.close()
        return False
    owner.detach()
    return True


_ours = _own_ports()
