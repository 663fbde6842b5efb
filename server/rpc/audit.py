"""The audit log: which key, by which login, made which call about a session or a batch job, and with which outcome."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final

from dalston.v1 import job_pb2, session_pb2
from google.protobuf.message import Message

from domain.errors import InvalidJobId
from domain.job import parse_job_id
from domain.session_id import is_session_id
from domain.tenancy import current_caller
from persistence.postgres.api_keys import format_key_id
from persistence.postgres.logins import format_login_id
from server.rpc.errors import answer_to, reason_name
from server.rpc.interceptor import Call, CallInterceptor, Context
from telemetry.logs import get_logger, note_caller

log = get_logger(__name__)

_FIELD: Final = "session_id"
METHODS: Final = frozenset(
    method.name
    for method in session_pb2.DESCRIPTOR.services_by_name["SessionService"].methods
    if _FIELD in method.input_type.fields_by_name
)
"""The methods whose request names a session."""
_JOB_FIELD: Final = "job_id"
JOB_METHODS: Final = frozenset(method.name for method in job_pb2.DESCRIPTOR.services_by_name["JobService"].methods)
"""The methods about batch jobs, whose requests name a job or a filter."""


class _Delivery:
    """Of a call that sends a file."""

    is_whole = False


_delivery: ContextVar[_Delivery | None] = ContextVar("delivery", default=None)


async def write_last(context: Context, message: Any) -> None:
    """Writes the last message of a file: a client that disconnects afterwards has cancelled nothing."""
    writing = asyncio.ensure_future(context.write(message))
    try:
        await asyncio.wait((writing,))
    except asyncio.CancelledError:
        # The client may have disconnected because the file is complete. The write has ended then, but its task has
        # not run yet.
        await asyncio.sleep(0)
        if _has_succeeded(writing):
            _note_whole()
        writing.cancel()
        await asyncio.wait((writing,))
        raise
    writing.result()
    _note_whole()


def _has_succeeded(writing: asyncio.Future[Any]) -> bool:
    return writing.done() and not writing.cancelled() and writing.exception() is None


def _note_whole() -> None:
    if delivery := _delivery.get():
        delivery.is_whole = True


class AuditInterceptor(CallInterceptor):
    """Logs every access to a session or a batch job.

    Calls that authentication refuses are logged as `call ended` only.
    """

    def accept(self, request: Any) -> Any:
        if isinstance(request, Message) and _FIELD in request.DESCRIPTOR.fields_by_name:
            _note_session(
                getattr(request, _FIELD),
                is_linked=getattr(request, "linked", False),
                version=getattr(request, "version", 0),
            )
        if isinstance(request, Message) and _JOB_FIELD in request.DESCRIPTOR.fields_by_name:
            _note_job(getattr(request, _JOB_FIELD))
        return request

    async def around(self, method: str, call: Call, context: Context) -> Any:
        if method not in METHODS | JOB_METHODS:
            return await call()
        outcome = "ok"
        delivery = _Delivery()
        _delivery.set(delivery)
        try:
            return await call()
        except asyncio.CancelledError:
            outcome = "ok" if delivery.is_whole else "cancelled"
            raise
        except Exception as error:
            outcome = reason_name(answer_to(error).reason).lower()
            raise
        finally:
            caller = current_caller.get()
            log.info(
                "job accessed" if method in JOB_METHODS else "session accessed",
                method=method,
                outcome=outcome,
                tenant_id=str(caller.tenant_id),
                key_id=None if caller.key_id is None else format_key_id(caller.key_id),
                login_id=None if caller.login_id is None else format_login_id(caller.login_id),
            )


def _note_session(session_id: str, *, is_linked: bool, version: int) -> None:
    if not is_session_id(session_id):
        return  # it may be any text, of any length
    fields = {"session_id": session_id}
    if is_linked:
        fields["linked"] = "true"  # the sessions that this one continues are read, too
    if version:
        fields["version"] = str(version)
    note_caller(**fields)


def _note_job(job_id: str) -> None:
    try:
        parse_job_id(job_id)
    except InvalidJobId:
        return  # as for sessions
    note_caller(job_id=job_id)
