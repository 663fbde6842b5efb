"""Tenants and their sessions

Revision: 0001
Follows: nothing
"""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The tenant of every caller while authentication is off.
_DEFAULT_TENANT_ID = UUID("00000000-0000-7000-8000-000000000001")


def upgrade() -> None:
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.bulk_insert(tenants, [{"id": _DEFAULT_TENANT_ID, "name": "default"}])
    op.create_table(
        "realtime_sessions",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=False),
        sa.Column("sample_rate", sa.Integer(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("store_audio", sa.Boolean(), nullable=False),
        sa.Column("store_transcript", sa.Boolean(), nullable=False),
        sa.Column("enhance_on_end", sa.Boolean(), nullable=False),
        sa.Column("audio_uri", sa.Text(), nullable=True),
        sa.Column("transcript_uri", sa.Text(), nullable=True),
        sa.Column("enhancement_job_id", sa.Text(), nullable=True),
        sa.Column("audio_duration_seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("utterance_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("word_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False, comment="the process that writes this row"),
        sa.Column("client_ip", postgresql.INET(), nullable=True),
        sa.Column("previous_session_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "deleted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="gone to its tenant; the objects go next, then the row",
        ),
        sa.CheckConstraint("(status = 'active') = (ended_at IS NULL)", name=op.f("ck_realtime_sessions_ended_at")),
        sa.CheckConstraint("deleted_at IS NULL OR status <> 'active'", name=op.f("ck_realtime_sessions_deleted_at")),
        sa.CheckConstraint(
            "encoding IN ('pcm_s16le', 'pcm_f32le', 'mulaw', 'alaw')", name=op.f("ck_realtime_sessions_encoding")
        ),
        sa.CheckConstraint(
            "status IN ('active', 'completed', 'error', 'interrupted')", name=op.f("ck_realtime_sessions_status")
        ),
        sa.CheckConstraint(
            "audio_duration_seconds >= 0 AND utterance_count >= 0 AND word_count >= 0",
            name=op.f("ck_realtime_sessions_counters"),
        ),
        sa.CheckConstraint("channels IN (1, 2)", name=op.f("ck_realtime_sessions_channels")),
        sa.CheckConstraint("sample_rate BETWEEN 8000 AND 48000", name=op.f("ck_realtime_sessions_sample_rate")),
        sa.CheckConstraint("store_audio OR NOT enhance_on_end", name=op.f("ck_realtime_sessions_enhance_needs_audio")),
        sa.CheckConstraint("store_audio OR audio_uri IS NULL", name=op.f("ck_realtime_sessions_audio_uri")),
        sa.CheckConstraint(
            "store_transcript OR transcript_uri IS NULL", name=op.f("ck_realtime_sessions_transcript_uri")
        ),
        sa.ForeignKeyConstraint(
            ["previous_session_id"],
            ["realtime_sessions.id"],
            name=op.f("fk_realtime_sessions_previous_session_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_realtime_sessions_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_realtime_sessions")),
    )
    op.create_index(
        "ix_realtime_sessions_active",
        "realtime_sessions",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "ix_realtime_sessions_deleted",
        "realtime_sessions",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "ix_realtime_sessions_list",
        "realtime_sessions",
        ["tenant_id", sa.literal_column("started_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_realtime_sessions_list_status",
        "realtime_sessions",
        ["tenant_id", "status", sa.literal_column("started_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_realtime_sessions_previous",
        "realtime_sessions",
        ["previous_session_id"],
        unique=False,
        postgresql_where=sa.text("previous_session_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("realtime_sessions")
    op.drop_table("tenants")
