"""An idle watch. Nothing else uses the stack meanwhile: other traffic would keep its connections alive."""

from tests.e2e.harness import Harness, grpc_bearer
from tests.faults.watcher import Watcher

SECONDS = 25
"""Longer than the heartbeat of a watch."""


async def test_an_idle_watch_has_a_heartbeat(harness: Harness) -> None:
    """The watcher sees no session: those of the harness belong to another tenant."""
    key = await harness.make_tenant("watching", "sessions:read")
    watcher = Watcher(harness.channel, metadata=grpc_bearer(key))
    try:
        await watcher.until(lambda watcher: "ready" in watcher.kinds)
        await watcher.until(lambda watcher: watcher.kinds[-1] == "heartbeat", SECONDS)
        assert set(watcher.kinds) == {"ready", "heartbeat"}
    finally:
        await watcher.close()
