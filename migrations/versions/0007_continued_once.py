"""At most one session continues another

Separate from the columns of 0003: adding a column locks the table completely until its transaction ends, and the index
is built from the whole table. During the build the table can be read, and only its writers wait.

Revision: 0007
Follows: 0006
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LINKED = "previous_session_id IS NOT NULL AND deleted_at IS NULL"


def upgrade() -> None:
    # No release has linked sessions. Of links that were made manually the first is kept, because the index allows one.
    op.execute(f"""
        UPDATE realtime_sessions AS s SET previous_session_id = NULL
        WHERE {_LINKED} AND EXISTS (
            SELECT FROM realtime_sessions AS first
            WHERE first.previous_session_id = s.previous_session_id AND first.deleted_at IS NULL AND first.id < s.id
        )
    """)  # noqa: S608 - no input
    # Not built concurrently, for the reason given in 0002; it holds linked sessions only, and there are none yet.
    op.create_index(
        "ix_realtime_sessions_resumed",
        "realtime_sessions",
        ["previous_session_id"],
        unique=True,
        postgresql_where=sa.text(_LINKED),
    )


def downgrade() -> None:
    op.drop_index("ix_realtime_sessions_resumed", table_name="realtime_sessions")
