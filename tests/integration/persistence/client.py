"""A client that transcribes, message by message."""

from __future__ import annotations

from typing import Any

import grpc
from dalston.v1 import transcription_pb2 as pb
from dalston.v1 import transcription_pb2_grpc


class Client:
    """One Transcribe stream, message by message."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float | None = None) -> None:
        self._stub = transcription_pb2_grpc.TranscriptionServiceStub(channel)
        self.call: Any = self._stub.Transcribe(timeout=timeout)
        self.session_id = ""

    async def begin(self, **config: Any) -> str:
        await self.call.write(pb.TranscribeRequest(config=pb.TranscribeConfig(**config)))
        response = await self.call.read()
        if response is grpc.aio.EOF:
            await self.call  # raises the status
        self.session_id = response.session_begin.session_id
        return str(self.session_id)

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            await self.call.write(pb.TranscribeRequest(audio=message))

    async def end(self) -> None:
        control = pb.TranscribeControl(end=pb.TranscribeControl.End())
        await self.call.write(pb.TranscribeRequest(control=control))

    async def final(self) -> str:
        return str((await self.call.read()).final.text)

    async def rest(self) -> list[pb.TranscribeResponse]:
        responses = []
        while (response := await self.call.read()) is not grpc.aio.EOF:
            responses.append(response)
        return responses
