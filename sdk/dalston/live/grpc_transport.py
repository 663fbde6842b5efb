"""Sessions over gRPC."""

from __future__ import annotations

from typing import Any

import grpc

from dalston.calls import Calls
from dalston.failures import error_of
from dalston.grpc_call import GrpcCall
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest, TranscribeResponse


class GrpcTransport:
    """Opens streams on the client's connection."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def open(self, config: TranscribeConfig) -> GrpcConnection:
        """See `Transport.open`. `receive` raises the error of a rejected stream."""
        transcribe: Any = self._calls.transcription.Transcribe  # Its type requires an iterator of all requests.
        connection = GrpcConnection(GrpcCall(transcribe(metadata=self._calls.metadata())))
        await connection.send(TranscribeRequest(config=config))
        return connection


class GrpcConnection:
    """One stream."""

    def __init__(self, call: GrpcCall[TranscribeRequest, Any]) -> None:
        self._call = call

    async def send_audio(self, audio: bytes) -> bool:
        return await self.send(TranscribeRequest(audio=audio))

    async def send_control(self, control: TranscribeControl) -> bool:
        is_sent = await self.send(TranscribeRequest(control=control))
        if is_sent and control.HasField("end"):
            await self._call.half_close()
        return is_sent

    async def send(self, request: TranscribeRequest) -> bool:
        """Sends a message. Returns False if the stream is over."""
        return await self._call.write(request)

    async def receive(self) -> TranscribeResponse | None:
        try:
            return await self._call.read()
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from None

    async def close(self) -> None:
        await self._call.close()
