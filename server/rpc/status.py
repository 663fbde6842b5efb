"""StatusService: how the deployment is, for operators."""

from datetime import UTC, datetime

from dalston.v1 import status_pb2 as pb
from dalston.v1 import status_pb2_grpc

from domain.errors import StorageUnavailable
from domain.tenancy import DEFAULT_TENANT_ID, current_caller
from persistence.postgres.process_reports import ProcessReports
from server.rpc.interceptor import Context
from server.rpc.times import timestamp


class StatusServicer(status_pb2_grpc.StatusServiceServicer):
    """The default tenant is the operator's and sees everything; others see totals of their own. Errors are raised."""

    def __init__(self, reports: ProcessReports) -> None:
        self._reports = reports

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: Context) -> pb.ServiceStatus:
        tenant_id = current_caller.get().tenant_id
        if tenant_id == DEFAULT_TENANT_ID:
            return await self._of_deployment()
        now = timestamp(datetime.now(UTC))
        try:
            totals = await self._reports.totals_of(tenant_id)
        except StorageUnavailable:
            return pb.ServiceStatus(view="tenant", checked_at=now)
        return pb.ServiceStatus(view="tenant", checked_at=now, totals=totals)

    async def _of_deployment(self) -> pb.ServiceStatus:
        answered_by = self._reports.worker_id
        try:
            found = await self._reports.read()
        except StorageUnavailable:
            # The operator asks above all when something does not work.
            return pb.ServiceStatus(
                view="deployment",
                checked_at=timestamp(datetime.now(UTC)),
                answered_by=answered_by,
                processes=[self._reports.own()],
            )
        return pb.ServiceStatus(
            view="deployment",
            checked_at=timestamp(found.now),
            answered_by=answered_by,
            processes=found.processes,
            totals=found.totals,
        )
