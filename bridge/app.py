"""The bridge process: its components, and when it stops."""

from contextlib import AsyncExitStack

from bridge.config import BridgeSettings
from bridge.listener import open_listener
from edge.channel import open_channel
from telemetry.logs import get_logger
from telemetry.metrics import serve_metrics
from telemetry.signals import stop_on_signals

log = get_logger(__name__)

METRICS_HOST = "127.0.0.1"


async def run(settings: BridgeSettings) -> None:
    """Serves until SIGTERM or SIGINT, then shuts down gracefully; a second signal ends the process at once.

    Raises:
        OSError: a port is taken, or the address is none of this machine's.
    """
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        stack.enter_context(serve_metrics(METRICS_HOST, settings.bridge_metrics_port))
        channel = await stack.enter_async_context(open_channel(settings.server_target))
        port = await stack.enter_async_context(open_listener(settings, channel))
        host = settings.bridge_host if settings.bridge_socket is None else f"unix:{settings.bridge_socket}"
        log.info("bridge ready", host=host, port=port, server=settings.server_target)
        await stop.wait()
        log.info("bridge stopping")
    log.info("bridge stopped")
