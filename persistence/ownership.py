"""Whose session is whose: how sessions pass from processes that are gone to one that lives.

A session belongs to the process that its row names. It passes in two ways: a start that finds the spool of a dead
process takes what is in it, and a reaper takes what nobody came back for in time.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, text

from persistence.database import Database
from persistence.records import Ending
from persistence.tables import UNFINISHED

# What is in no spool is left to the reaper, at once.
_ADOPT = text(f"""
    WITH gone AS (DELETE FROM workers WHERE id = ANY(:homes) AND id <> :worker_id)
    UPDATE realtime_sessions SET
        worker_id = :worker_id,
        recover_after = CASE WHEN id = ANY(:spooled) THEN NULL ELSE now() END,
        error = CASE WHEN status = 'active' THEN :error ELSE error END,
        ended_at = coalesce(ended_at, :ended_at),
        status = CASE WHEN status = 'active' THEN :status ELSE status END
    WHERE (worker_id = ANY(:homes) AND ({UNFINISHED} OR id = ANY(:spooled)))
        OR (id = ANY(:spooled) AND recover_after IS NOT NULL AND ({UNFINISHED}))
    RETURNING id
""").bindparams(bindparam("homes", type_=ARRAY(Text)), bindparam("spooled", type_=ARRAY(Uuid)))  # noqa: S608 - no input


class Ownership:
    """Takes sessions over for one process. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database, worker_id: str, check: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._worker_id = worker_id
        self._check = check

    async def adopt(
        self, homes: Sequence[str], spooled: Sequence[UUID], ending: Ending, ended_at: datetime
    ) -> frozenset[UUID]:
        """Takes over the unfinished sessions of processes that are known to be dead, in one statement.

        Active ones get `ending`. Those in `spooled` are for the caller to finish, also when a reaper has taken them but
        not begun to recover them, or when they are stored and only their spool is still there. The rest is left to this
        process's reaper.

        Args:
            homes: worker ids whose spool directory the caller has locked; its own may be among them.
            spooled: sessions whose spool the caller has.

        Returns:
            the sessions taken.
        """
        self._check()
        parameters = {
            "worker_id": self._worker_id,
            "homes": list(homes),
            "spooled": list(spooled),
            "status": ending.status,
            "error": ending.error,
            "ended_at": ended_at,
        }
        async with self._database.transaction() as connection:
            return frozenset((await connection.execute(_ADOPT, parameters)).scalars())
