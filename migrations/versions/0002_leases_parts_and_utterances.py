"""Leases of the processes, and the stored data of running sessions

Revision: 0002
Follows: 0001

Servers of the previous release must not run against this schema: they hold no lease, so they would lose their
sessions.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_UNFINISHED = (
    "status = 'active' OR has_tails OR (store_audio AND audio_uri IS NULL)"
    " OR (store_transcript AND transcript_uri IS NULL)"
)


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="distinguishes processes of the same worker id",
        ),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_lease_expires_at", "workers", ["lease_expires_at"], unique=False)
    op.add_column("realtime_sessions", sa.Column("upload_id", sa.Text(), nullable=True))
    op.add_column(
        "realtime_sessions", sa.Column("stored_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "realtime_sessions",
        sa.Column(
            "has_tails",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the audio is stored; its tail objects are still to be removed",
        ),
    )
    op.add_column(
        "realtime_sessions",
        sa.Column(
            "recover_after",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="taken from a dead process; until then its spool may claim it back",
        ),
    )
    # Not built concurrently: that waits for every transaction, also for that of a second migration, which waits for
    # this one's advisory lock.
    op.create_index(
        "ix_realtime_sessions_unfinished",
        "realtime_sessions",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text(_UNFINISHED),
    )
    op.drop_index("ix_realtime_sessions_active", table_name="realtime_sessions")
    op.create_table(
        "session_parts",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("part_number", sa.Integer(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.CheckConstraint("part_number BETWEEN 1 AND 10000", name=op.f("ck_session_parts_part_number")),
        sa.CheckConstraint("size > 0", name=op.f("ck_session_parts_size")),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["realtime_sessions.id"],
            name=op.f("fk_session_parts_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "part_number", name=op.f("pk_session_parts")),
    )
    op.create_table(
        "session_utterances",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False, comment="0 is the first"),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("end", sa.Double(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("words", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["realtime_sessions.id"],
            name=op.f("fk_session_utterances_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "index", name=op.f("pk_session_utterances")),
    )


def downgrade() -> None:
    op.drop_table("session_utterances")
    op.drop_table("session_parts")
    op.create_index(
        "ix_realtime_sessions_active",
        "realtime_sessions",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.drop_index("ix_realtime_sessions_unfinished", table_name="realtime_sessions")
    for column in ("recover_after", "has_tails", "stored_bytes", "upload_id"):
        op.drop_column("realtime_sessions", column)
    op.drop_table("workers")
