"""FileService: transcription of files."""

from typing import Any, NoReturn

from dalston.v1 import file_pb2_grpc

from server.rpc import unimplemented
from server.rpc.interceptor import Context


class FileServicer(file_pb2_grpc.FileServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    async def TranscribeFile(self, _requests: Any, _context: Context) -> NoReturn:  # type: ignore[override]
        unimplemented.refuse_method("TranscribeFile")
