"""A client that sends a file to a service without the method learns that, through every route."""

from types import SimpleNamespace

import pytest
from dalston import AsyncClient, Unsupported
from dalston.calls import Calls
from dalston.v1.file_pb2 import TranscribeFileRequest, TranscribeFileResponse

from tests.integration.envoy.conftest import Front


@pytest.mark.parametrize("size", [10, 10_000_000])
@pytest.mark.parametrize("service", ["FileService", "AnotherService"])
async def test_file_for_a_service_without_the_method_is_unsupported(
    service: str, size: int, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AnotherService` is what `FileService` is to an Envoy that is older than it."""

    def files(calls: Calls) -> SimpleNamespace:
        return SimpleNamespace(
            TranscribeFile=calls.channel.stream_stream(
                f"/dalston.v1.{service}/TranscribeFile",
                request_serializer=TranscribeFileRequest.SerializeToString,
                response_deserializer=TranscribeFileResponse.FromString,
            )
        )

    monkeypatch.setattr(Calls, "files", property(files))
    async with AsyncClient(front.http) as client:
        with pytest.raises(Unsupported, match="older than this client"):
            await client.transcribe_file(bytes(size))
