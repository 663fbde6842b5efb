"""The schema, as the migrations make it. Row by row it is read into the values of `records`."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INET

from persistence.records import STATUSES

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

_LIVING = text("deleted_at IS NULL")


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


realtime_sessions = Table(
    "realtime_sessions",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("status", Text, nullable=False, server_default="active"),
    Column("language", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("sample_rate", Integer, nullable=False),
    Column("channels", Integer, nullable=False),
    Column("store_audio", Boolean, nullable=False),
    Column("store_transcript", Boolean, nullable=False),
    Column("enhance_on_end", Boolean, nullable=False),
    Column("audio_uri", Text),
    Column("transcript_uri", Text),
    Column("enhancement_job_id", Text),
    Column("audio_duration_seconds", Double, nullable=False, server_default="0"),
    Column("utterance_count", Integer, nullable=False, server_default="0"),
    Column("word_count", Integer, nullable=False, server_default="0"),
    Column("worker_id", Text, nullable=False, comment="the process that writes this row"),
    Column("client_ip", INET),
    Column("previous_session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="SET NULL")),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("error", Text),
    Column("deleted_at", DateTime(timezone=True), comment="gone to its tenant; the objects go next, then the row"),
    CheckConstraint(f"status IN ({_quoted(STATUSES)})", name="status"),
    CheckConstraint("encoding IN ('pcm_s16le', 'pcm_f32le', 'mulaw', 'alaw')", name="encoding"),
    CheckConstraint("sample_rate BETWEEN 8000 AND 48000", name="sample_rate"),
    CheckConstraint("channels IN (1, 2)", name="channels"),
    CheckConstraint("store_audio OR NOT enhance_on_end", name="enhance_needs_audio"),
    CheckConstraint("store_audio OR audio_uri IS NULL", name="audio_uri"),
    CheckConstraint("store_transcript OR transcript_uri IS NULL", name="transcript_uri"),
    CheckConstraint("audio_duration_seconds >= 0 AND utterance_count >= 0 AND word_count >= 0", name="counters"),
    CheckConstraint("(status = 'active') = (ended_at IS NULL)", name="ended_at"),
    CheckConstraint("deleted_at IS NULL OR status <> 'active'", name="deleted_at"),
    # The list, and the list of one status, in their order.
    Index("ix_realtime_sessions_list", "tenant_id", text("started_at DESC"), text("id DESC"), postgresql_where=_LIVING),
    Index(
        "ix_realtime_sessions_list_status",
        "tenant_id",
        "status",
        text("started_at DESC"),
        text("id DESC"),
        postgresql_where=_LIVING,
    ),
    Index(
        "ix_realtime_sessions_previous",
        "previous_session_id",
        postgresql_where=text("previous_session_id IS NOT NULL"),
    ),
    # What a process that died has left open.
    Index("ix_realtime_sessions_active", "worker_id", postgresql_where=text("status = 'active'")),
    Index("ix_realtime_sessions_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
)
