"""Deleted sessions are recorded

A session without a row is not a deleted one: a failover of Postgres to an asynchronous standby loses the last rows.
From here on, code that removes the objects of a session requires its entry in this table. A trigger writes it, so that
a delete by a server of the release before counts, too. It fires for statements that set `deleted_at` and for no others.

Revision: 0009
Follows: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "deleted_sessions",
        sa.Column("id", sa.Uuid(), nullable=False, comment="of the session"),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_sessions")),
    )
    op.create_index("ix_deleted_sessions_deleted_at", "deleted_sessions", ["deleted_at"], unique=False)
    op.execute("""
        CREATE FUNCTION note_deleted_session() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO deleted_sessions (id, deleted_at) VALUES (NEW.id, NEW.deleted_at)
            ON CONFLICT (id) DO NOTHING;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER note_deleted_session AFTER UPDATE OF deleted_at ON realtime_sessions
        FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL)
        EXECUTE FUNCTION note_deleted_session()
    """)
    op.execute(
        "INSERT INTO deleted_sessions (id, deleted_at)"
        " SELECT id, deleted_at FROM realtime_sessions WHERE deleted_at IS NOT NULL"
    )
    # When the table became complete: later than the start of the transaction, which waited for the lock.
    op.execute("INSERT INTO deleted_sessions VALUES ('00000000-0000-0000-0000-000000000000', clock_timestamp())")


def downgrade() -> None:
    op.execute("DROP TRIGGER note_deleted_session ON realtime_sessions")
    op.execute("DROP FUNCTION note_deleted_session()")
    op.drop_table("deleted_sessions")
