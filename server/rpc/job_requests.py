"""Requests for batch jobs, checked as the configuration of a live stream is."""

from uuid import UUID

from dalston.v1 import session_pb2 as pb

from domain.job import DEFAULT_MODEL, JobRecord, JobRequest
from domain.session_id import parse_session_id
from domain.tenancy import current_caller
from persistence.postgres.jobs import JobStore, Requester
from server.rpc.config_message import ModelCatalog, parse_language, parse_model, parse_vocabulary


class JobRequests:
    """Creates the jobs that calls ask for."""

    def __init__(self, jobs: JobStore, catalog: ModelCatalog, max_queued: int) -> None:
        """
        Args:
            jobs: where the jobs are.
            catalog: the models of this server. Those of the workers are expected to have the same names.
            max_queued: waiting jobs of a tenant that has no limit of its own.
        """
        self._jobs = jobs
        self._catalog = catalog
        self._max_queued = max_queued

    async def enhance(self, request: pb.EnhanceSessionRequest) -> JobRecord:
        """Creates the job that a message asks for.

        Raises:
            InvalidModel, InvalidParameter: a value is wrong.
            Further errors are those of `JobStore.create`.
        """
        session_id = parse_session_id(request.session_id)
        model = parse_model(request.model or DEFAULT_MODEL, self._catalog)
        vocabulary = parse_vocabulary(request.vocabulary)
        requester = self._requester()
        language = request.language or await self._jobs.requested_language(requester.tenant_id, session_id)
        asked = JobRequest(model, parse_language(language, model, self._catalog), vocabulary)
        linked = request.linked if request.HasField("linked") else None
        return await self._jobs.create(requester, session_id, asked, linked=linked)

    async def retry(self, job_id: UUID) -> JobRecord:
        """Creates a job like one that has ended.

        Raises:
            The errors of `JobStore.retry`.
        """
        return await self._jobs.retry(self._requester(), job_id)

    def _requester(self) -> Requester:
        caller = current_caller.get()
        own = caller.limits.max_queued_jobs
        return Requester(caller.tenant_id, caller.key_id, self._max_queued if own is None else own)
