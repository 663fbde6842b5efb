"""JobService: the batch jobs of the caller's tenant."""

from uuid import UUID

from dalston.v1 import job_pb2 as pb
from dalston.v1 import job_pb2_grpc

from domain.job import parse_job_id
from domain.session_id import parse_session_id
from domain.tenancy import current_caller
from persistence.postgres.jobs import JobFilter, JobStore
from server.rpc.interceptor import Context
from server.rpc.job_message import job_message
from server.rpc.job_requests import JobRequests
from server.rpc.job_watch import watch_job
from server.rpc.watch import Watches

DEFAULT_LIMIT = 50


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Every method sees the caller's tenant only; errors are raised, not answered."""

    def __init__(self, jobs: JobStore, requests: JobRequests, watches: Watches) -> None:
        self._jobs = jobs
        self._requests = requests
        self._watches = watches

    async def ListJobs(self, request: pb.ListJobsRequest, _context: Context) -> pb.ListJobsResponse:
        wanted = JobFilter(
            status=request.status or None,
            kind=request.kind or None,
            session_id=parse_session_id(request.session_id) if request.session_id else None,
        )
        limit = request.limit if request.HasField("limit") else DEFAULT_LIMIT
        page = await self._jobs.list(_tenant(), wanted, limit, request.cursor or None)
        return pb.ListJobsResponse(jobs=[job_message(job) for job in page.jobs], next_cursor=page.next_cursor)

    async def GetJob(self, request: pb.GetJobRequest, _context: Context) -> pb.Job:
        return job_message(await self._jobs.get(_tenant(), parse_job_id(request.job_id)))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> None:  # type: ignore[override]
        await watch_job(self._jobs, self._watches, _tenant(), parse_job_id(request.job_id), context)

    async def CancelJob(self, request: pb.CancelJobRequest, _context: Context) -> pb.Job:
        return job_message(await self._jobs.cancel(_tenant(), parse_job_id(request.job_id)))

    async def RetryJob(self, request: pb.RetryJobRequest, _context: Context) -> pb.Job:
        return job_message(await self._requests.retry(parse_job_id(request.job_id)))


def _tenant() -> UUID:
    return current_caller.get().tenant_id
