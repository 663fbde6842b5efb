"""The status of the deployment through the real Envoy, with a stream that runs."""

import json
from typing import Any

from dalston.v1 import status_pb2, status_pb2_grpc

from tests.e2e.conftest import Client, Sample, chunks
from tests.e2e.harness import Harness, bearer, grpc_bearer

PATH = "/v1/status"


def answering(status: dict[str, Any]) -> dict[str, Any]:
    """The server that answered."""
    return next(each for each in status["processes"] if each["id"] == status["answered_by"])


async def test_a_running_stream_shows_with_its_latencies_and_places(client: Client, sample: Sample) -> None:
    async with client.open(store_audio="true", store_transcript="true") as socket:
        assert json.loads(await socket.recv())["type"] == "session.begin"
        for frame in chunks(sample.pcm[: 12 * sample.rate].tobytes()):
            await socket.send(frame)
        while json.loads(await socket.recv())["type"] != "transcript.final":
            pass
        status = (await client.http.get(PATH)).json()
        assert status["view"] == "deployment"
        server = answering(status)
        assert (server["kind"], server["state"], server["lease_valid"]) == ("server", "ready", True)
        assert server["version"] == "0.1.0"
        figures = server["server"]
        assert 1 <= figures["sessions"] <= figures["max_sessions"]
        assert figures["finals"]["count"] >= 1
        # The recognizer of this stack answers at once: they may be 0.
        assert 0 <= figures["finals"]["p50_seconds"] <= figures["finals"]["p95_seconds"]
        assert figures["max_queue_delay_seconds"] > 0
        assert figures["storage"]["spool_bytes"] > 0
        assert status["totals"]["active_sessions"] >= 1
        assert status["checked_at"]
        assert server["reported_at"]
        await socket.send('{"type":"end"}')
        async for _ in socket:
            pass


async def test_a_queued_job_counts_with_its_age(client: Client, sample: Sample) -> None:
    frames = chunks(sample.pcm[: 2 * sample.rate].tobytes())
    outcome = await client.transcribe(*frames, store_audio="true", enhance_on_end="true")
    job_id = outcome.one("session.end")["enhancement_job_id"]
    totals = (await client.http.get(PATH)).json()["totals"]
    assert totals["queued_jobs"] + totals.get("running_jobs", 0) >= 1
    if totals["queued_jobs"]:
        assert totals["oldest_queued_at"]
    await client.http.delete(f"/v1/jobs/{job_id}")


async def test_keys_of_other_tenants_see_their_own_totals_and_no_process(harness: Harness) -> None:
    status = (await harness.http.get(PATH, headers=bearer(harness.admin))).json()
    assert status["view"] == "tenant"
    assert not status.get("processes")
    assert "answered_by" not in status
    operator = await harness.make_tenant("default", "admin")
    whole = (await harness.http.get(PATH, headers=bearer(operator))).json()
    assert whole["view"] == "deployment"
    assert answering(whole)["state"] == "ready"
    newcomer = await harness.make_tenant("status-newcomer", "admin")
    stub = status_pb2_grpc.StatusServiceStub(harness.channel)
    call = stub.GetStatus(status_pb2.GetStatusRequest(), metadata=grpc_bearer(newcomer))
    answer = await call  # type: ignore[misc]  # the stubs are of the synchronous channel
    assert (answer.view, list(answer.processes), answer.totals) == ("tenant", [], status_pb2.Totals())
