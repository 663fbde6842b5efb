"""Loopback ports."""

import contextlib
import random
import socket

# Below the range from which Linux takes the local ports of outgoing connections, which would race with ours.
_LOWEST, _HIGHEST = 18000, 32000
_given: set[int] = set()


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
    """A port of 127.0.0.1 that nobody listens on; never the same twice in one process.

    Raises:
        OSError: none found.
    """
    for _ in range(1000):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - spreads, protects nothing
        if port not in _given and is_free("127.0.0.1", port):
            _given.add(port)
            return port
    raise OSError(f"no free port between {_LOWEST} and {_HIGHEST}")
