"""Where a session continues another, and how far each has come

Revision: 0003
Follows: 0002

The servers of the release before run against this schema: they know neither column, and never link two sessions.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LINKED = "previous_session_id IS NOT NULL AND deleted_at IS NULL"


def upgrade() -> None:
    op.add_column(
        "realtime_sessions",
        sa.Column("resume_from_seconds", sa.Double(), nullable=True, comment="in the audio of the previous session"),
    )
    op.add_column(
        "realtime_sessions",
        sa.Column("processed_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
    )
    # No release has linked sessions, but whoever did so by hand keeps the first link: the index takes no second.
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
    for column in ("processed_seconds", "resume_from_seconds"):
        op.drop_column("realtime_sessions", column)
