"""Ends sessions of this server whose end was requested, here or at another server, or whose key was revoked or has
expired."""

import asyncio
import random
from types import TracebackType
from typing import Final, Self

from domain.errors import StorageUnavailable
from domain.session_id import format_session_id
from persistence.postgres.end_requests import EndRequests
from persistence.recording.call import RecordedCall
from persistence.recording.interceptor import RecordingInterceptor
from server.session.errors import KeyEnded, SessionEnded, SessionError
from telemetry.logs import get_logger

log = get_logger(__name__)

POLL_SECONDS: Final = 2.0
KEY_GRACE_SECONDS: Final = 5.0
"""Grace period of a session whose key has ended, for its last finals: it ends within 10 s, even if text is late."""


class EndRequestWatcher:
    """An async context manager that polls Postgres while its block runs.

    While Postgres is unavailable, requests wait.
    """

    def __init__(self, requests: EndRequests, interceptor: RecordingInterceptor, grace_seconds: float) -> None:
        """`grace_seconds`: how long a session may process what it has received after its end was requested."""
        self._requests = requests
        self._interceptor = interceptor
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="requests to end sessions")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        is_failing = False
        while True:
            await asyncio.sleep(POLL_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - jitter, not a secret
            try:
                await self.poll()
                is_failing = False
            except StorageUnavailable:
                if not is_failing:
                    log.warning("requests to end sessions wait: the database is unavailable")
                is_failing = True
            except Exception:
                # A bug must not end the task: no session could be ended any more.
                log.exception("requests to end sessions cannot be read")

    async def poll(self) -> None:
        """Ends the sessions that are due.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        calls = self._interceptor.calls
        session_ids = {call.session_id for call in calls if call.session_id is not None}
        key_ids = {call.key_id for call in calls if call.key_id is not None}
        if not session_ids and not key_ids:
            return
        due = await self._requests.due(session_ids, key_ids)
        for call in calls:
            if call.key_id in due.keys:
                self._end(call, KeyEnded(), KEY_GRACE_SECONDS)
            elif call.session_id in due.sessions:
                self._end(call, SessionEnded(), self._grace_seconds)

    def _end(self, call: RecordedCall, error: SessionError, grace_seconds: float) -> None:
        if call.end(error, grace_seconds):
            session_id = format_session_id(call.session_id) if call.session_id else None
            log.info("session is being ended", session_id=session_id, reason=str(error))
