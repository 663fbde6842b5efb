"""Prometheus metrics over HTTP. Each module declares its own metrics with `prometheus_client`, named `dalston_*`."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server


@contextmanager
def serve_metrics(host: str, port: int) -> Iterator[None]:
    """Serves `/metrics` while the block runs; port 0 means not at all.

    Raises:
        OSError: the port is taken.
    """
    if port == 0:
        yield
        return
    server, thread = start_http_server(port, host)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
