"""JobService: the batch jobs of the caller's tenant."""

from typing import Any, NoReturn

from dalston.v1 import job_pb2_grpc

from server.rpc import unimplemented
from server.rpc.interceptor import Context


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    async def ListJobs(self, _request: Any, _context: Context) -> NoReturn:
        unimplemented.refuse_method("ListJobs")

    async def GetJob(self, _request: Any, _context: Context) -> NoReturn:
        unimplemented.refuse_method("GetJob")

    async def WatchJob(self, _request: Any, _context: Context) -> NoReturn:  # type: ignore[override]
        unimplemented.refuse_method("WatchJob")

    async def CancelJob(self, _request: Any, _context: Context) -> NoReturn:
        unimplemented.refuse_method("CancelJob")

    async def RetryJob(self, _request: Any, _context: Context) -> NoReturn:
        unimplemented.refuse_method("RetryJob")
