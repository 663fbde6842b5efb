"""The status of the service through the SDK and Envoy."""

from dalston import AsyncClient, Client, ServiceStatus


def answering_is_ready(status: ServiceStatus) -> bool:
    (server,) = [process for process in status.processes if process.id == status.answered_by]
    assert status.view == "deployment"
    assert status.totals is not None
    assert server.server is not None
    assert server.server.max_sessions > 0
    assert server.server.storage.max_spool_bytes > 0
    assert status.checked_at is not None
    return server.state == "ready" and server.lease_valid


def test_the_synchronous_client_reads_the_status(client: Client) -> None:
    assert answering_is_ready(client.status())


async def test_the_asynchronous_client_reads_the_status(async_client: AsyncClient) -> None:
    assert answering_is_ready(await async_client.status())
