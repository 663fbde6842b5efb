"""The schema, as the migrations create it. The rows are read into the values of `session_values`."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

from domain.credentials import SCOPES
from domain.job import JOB_KINDS, JOB_STATUSES
from domain.session import SOURCES, STATUSES

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # NULL: the default of the server's settings.
    Column("max_sessions", Integer, comment="that run at a time, on all servers"),
    Column("requests_per_second", Double, comment="of one server"),
    Column("max_session_seconds", Double),
    Column("idle_timeout_seconds", Double),
    Column("max_storage_bytes", BigInteger, comment="of stored audio, all sessions together"),
    Column("max_jobs", Integer, comment="that run at a time, on all workers"),
    Column("max_queued_jobs", Integer),
    Column("max_upload_bytes", BigInteger, comment="of one uploaded file"),
    CheckConstraint("max_sessions >= 0 AND requests_per_second > 0", name="rates"),
    CheckConstraint("max_session_seconds > 0 AND idle_timeout_seconds > 0", name="times"),
    CheckConstraint("max_storage_bytes >= 0", name="storage"),
    CheckConstraint("max_jobs >= 0 AND max_queued_jobs >= 0 AND max_upload_bytes >= 0", name="jobs"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("tenant_id", Uuid, ForeignKey("tenants.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, comment="the first characters of the secret"),
    Column("secret_hash", LargeBinary, nullable=False, unique=True, comment="SHA-256"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_by", Uuid, comment="the key that made it, whether or not it is still there; NULL: the operator"),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    CheckConstraint(f"scopes <@ ARRAY[{_quoted(SCOPES)}] AND scopes <> '{{}}'", name="scopes"),
    Index("ix_api_keys_list", "tenant_id", text("created_at DESC"), text("id DESC")),
)

realtime_tokens = Table(
    "realtime_tokens",
    metadata,
    Column("secret_hash", LargeBinary, primary_key=True, comment="SHA-256"),
    Column("key_id", Uuid, ForeignKey("api_keys.id", ondelete="CASCADE"), nullable=False, comment="that made it"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    Index("ix_realtime_tokens_key_id", "key_id"),
    Index("ix_realtime_tokens_expires_at", "expires_at"),
)

logins = Table(
    "logins",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("secret_hash", LargeBinary, nullable=False, unique=True, comment="SHA-256"),
    Column(
        "key_id",
        Uuid,
        ForeignKey("api_keys.id", ondelete="CASCADE"),
        nullable=False,
        comment="that made it, whose scopes it has",
    ),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
    Column("user_agent", Text, nullable=False, server_default="", comment="what the browser called itself"),
    CheckConstraint("octet_length(secret_hash) = 32", name="secret_hash"),
    CheckConstraint("char_length(user_agent) <= 200", name="user_agent"),
    Index("ix_logins_list", "key_id", text("created_at DESC"), text("id DESC")),
    Index("ix_logins_expires_at", "expires_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column(
        "started_at",
        DateTime(timezone=True),
        nullable=False,
        comment="distinguishes one run of the process from the next",
    ),
    Column("lease_expires_at", DateTime(timezone=True), nullable=False),
    Column("kind", Text, nullable=False, server_default="server", comment="what the process does"),
    Column("host", Text, comment="the machine it runs on"),
    Column(
        "is_behind", Boolean, nullable=False, server_default="false", comment="live sessions need all of the machine"
    ),
    CheckConstraint("kind IN ('server', 'worker')", name="kind"),
    Index("ix_workers_lease_expires_at", "lease_expires_at"),
)

# What each process reports of itself, for the status of the deployment. Not in `workers`, so that a report that fails
# cannot delay a lease, and so that a killed process stays visible after others have removed its lease.
process_reports = Table(
    "process_reports",
    metadata,
    Column("id", Text, primary_key=True, comment="of the process, as in workers"),
    Column("started_at", DateTime(timezone=True), nullable=False, comment="as in workers"),
    Column("reported_at", DateTime(timezone=True), nullable=False),
    Column("report", JSONB, nullable=False, comment="a Process of the contract, without its lease"),
)

_VISIBLE = text("deleted_at IS NULL")

UNFINISHED = (
    "status = 'active' OR has_tails OR (store_audio AND audio_uri IS NULL)"
    " OR (store_transcript AND transcript_uri IS NULL)"
)
"""The condition of sessions for which their owner still has work to do."""

HAS_NOTHING = "(s.audio_duration_seconds = 0 AND s.stored_bytes = 0 AND s.utterance_count = 0)"
"""The condition of sessions `s` without audio in their row, which the first audio reaches within a second."""

HAS_SERVER = "EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id AND w.lease_expires_at > now())"
"""The condition of sessions `s` whose process has a valid lease."""

RUNS = f"(s.status = 'active' AND {HAS_SERVER})"
"""The condition of sessions `s` that are active and whose process has a valid lease."""


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
    Column("enhancement_job_id", Text, comment="the newest batch job of the recording; a trigger writes it"),
    Column("audio_duration_seconds", Double, nullable=False, server_default="0"),
    Column("utterance_count", Integer, nullable=False, server_default="0"),
    Column("word_count", Integer, nullable=False, server_default="0"),
    Column("worker_id", Text, nullable=False, comment="the process that writes this row"),
    Column("client_ip", INET),
    Column("previous_session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="SET NULL")),
    Column("resume_from_seconds", Double, comment="in the audio of the previous session"),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("error", Text),
    Column("deleted_at", DateTime(timezone=True), comment="gone to its tenant; the objects go next, then the row"),
    Column("upload_id", Text),
    Column("stored_bytes", BigInteger, nullable=False, server_default="0"),
    Column("processed_seconds", Double, nullable=False, server_default="0"),
    Column(
        "has_tails",
        Boolean,
        nullable=False,
        server_default="false",
        comment="the audio is stored; its tail objects are still to be removed",
    ),
    Column(
        "recover_after",
        DateTime(timezone=True),
        comment="taken from a dead process; until then its spool may claim it back",
    ),
    Column(
        "end_requested_at",
        DateTime(timezone=True),
        comment="when somebody asked for its end; its server looks every few seconds",
    ),
    Column("source", Text, nullable=False, server_default="live"),
    Column("current_version", Integer, comment="of the transcript; null: 1"),
    Column("requested_language", Text, comment="ISO 639-1 or auto; null: of an earlier release"),
    Column("vocabulary", ARRAY(Text), nullable=False, server_default="{}", comment="for the job of its end"),
    Column("media_type", Text, comment="of an uploaded file"),
    Column("file_name", Text, comment="of an uploaded file, as its client has it"),
    Column("expires_at", DateTime(timezone=True), comment="when it is deleted, once its job has ended"),
    CheckConstraint(f"source IN ({_quoted(SOURCES)})", name="source"),
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
    Index(
        "ix_realtime_sessions_list", "tenant_id", text("started_at DESC"), text("id DESC"), postgresql_where=_VISIBLE
    ),
    Index(
        "ix_realtime_sessions_list_status",
        "tenant_id",
        "status",
        text("started_at DESC"),
        text("id DESC"),
        postgresql_where=_VISIBLE,
    ),
    Index(
        "ix_realtime_sessions_previous",
        "previous_session_id",
        postgresql_where=text("previous_session_id IS NOT NULL"),
    ),
    # At most one session continues another.
    Index(
        "ix_realtime_sessions_resumed",
        "previous_session_id",
        unique=True,
        postgresql_where=text("previous_session_id IS NOT NULL AND deleted_at IS NULL"),
    ),
    # The unfinished sessions of dead processes.
    Index("ix_realtime_sessions_unfinished", "worker_id", postgresql_where=text(UNFINISHED)),
    Index("ix_realtime_sessions_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    Index("ix_realtime_sessions_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
)

session_parts = Table(
    "session_parts",
    metadata,
    Column("session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("part_number", Integer, primary_key=True, autoincrement=False),
    Column("etag", Text, nullable=False),
    Column("size", Integer, nullable=False),
    CheckConstraint("part_number BETWEEN 1 AND 10000", name="part_number"),
    CheckConstraint("size > 0", name="size"),
)

session_utterances = Table(
    "session_utterances",
    metadata,
    Column("session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False, comment="0 is the first"),
    Column("start", Double, nullable=False),
    Column("end", Double, nullable=False),
    Column("text", Text, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("language", Text, nullable=False),
    Column("words", JSONB, nullable=False),
    Column("language_probability", Double, comment="null if the language was requested"),
)

# Without foreign keys: it also has changes of deleted sessions, and its rows live for hours only.
session_changes = Table(
    "session_changes",
    metadata,
    Column("session_id", Uuid, primary_key=True, comment="may be gone"),
    Column("tenant_id", Uuid, nullable=False),
    Column("xid", BigInteger, nullable=False, comment="the transaction of its last change"),
    Column("moved_xid", BigInteger, comment="the last by which it came, went or moved"),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Index("ix_session_changes_tenant_id_xid", "tenant_id", "xid"),
)

# Tombstones: a session without a row was deleted only if it is here.
deleted_sessions = Table(
    "deleted_sessions",
    metadata,
    Column("id", Uuid, primary_key=True, comment="of the session"),
    Column("deleted_at", DateTime(timezone=True), nullable=False),
    Index("ix_deleted_sessions_deleted_at", "deleted_at"),
)

# The bytes that the ended sessions of a tenant store are the sum of its rows, which triggers write. Without foreign
# keys: the deletion of a tenant deletes its sessions, and these change this table.
tenant_usage = Table(
    "tenant_usage",
    metadata,
    Column("tenant_id", Uuid, primary_key=True, comment="may be gone"),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("stored_bytes", BigInteger, nullable=False, comment="a share of the sum; may be below 0"),
)

transcription_jobs = Table(
    "transcription_jobs",
    metadata,
    Column("id", Uuid, primary_key=True, comment="that of the session where its end created the job; else a UUIDv7"),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="queued"),
    Column("model", Text, nullable=False),
    Column("language", Text, nullable=False, comment="requested: ISO 639-1, or auto"),
    Column("vocabulary", ARRAY(Text), nullable=False, server_default="{}"),
    Column("linked", Boolean, nullable=False, server_default="false"),
    Column("requested_by", Uuid, comment="the key; null: the end of the session"),
    Column("fingerprint", LargeBinary, comment="SHA-256 of an uploaded file and its configuration"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("started_at", DateTime(timezone=True), comment="its last claim"),
    Column("ended_at", DateTime(timezone=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("worker_id", Text, comment="the process that does it"),
    Column("claim", Integer, nullable=False, server_default="0", comment="counts claims: a fence against earlier ones"),
    Column("attempts", Integer, nullable=False, server_default="0", comment="claims since a window was last finished"),
    Column("audio_seconds", Double, nullable=False, server_default="0"),
    Column("done_seconds", Double, nullable=False, server_default="0"),
    Column("done_windows", Integer, nullable=False, server_default="0"),
    Column("rate", Double, comment="audio seconds per second, of this job"),
    Column("step", Text),
    Column("plan", JSONB, comment="language and windows, as listening found them"),
    Column("chain", ARRAY(Uuid), comment="the sessions of the joined recording, oldest first, when it began"),
    Column("chain_key", LargeBinary, comment="identifies that recording"),
    Column("version", Integer, comment="of the transcript that it writes, from its first window on"),
    Column("error", Text),
    Column("error_code", Text),
    CheckConstraint(f"kind IN ({_quoted(JOB_KINDS)})", name="kind"),
    CheckConstraint(f"status IN ({_quoted(JOB_STATUSES)})", name="status"),
    CheckConstraint("(status = 'running') = (worker_id IS NOT NULL)", name="worker_id"),
    CheckConstraint("(status IN ('completed', 'failed', 'canceled')) = (ended_at IS NOT NULL)", name="ended_at"),
    Index(
        "ix_transcription_jobs_unended",
        "session_id",
        unique=True,
        postgresql_where=text("kind = 'enhance' AND status IN ('queued', 'running')"),
    ),
    Index("ix_transcription_jobs_session", "session_id", text("created_at DESC")),
    Index("ix_transcription_jobs_list", "tenant_id", text("created_at DESC"), text("id DESC")),
    Index("ix_transcription_jobs_turn", "tenant_id", "started_at"),
    Index("ix_transcription_jobs_due", "status", "due_at", postgresql_where=text("status IN ('queued', 'running')")),
    Index("ix_transcription_jobs_fingerprint", "fingerprint", postgresql_where=text("fingerprint IS NOT NULL")),
)

# The versions after the live one, whose figures are in the row of its session.
transcripts = Table(
    "transcripts",
    metadata,
    Column("session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False, comment="2 and later; 1 for an uploaded file"),
    Column("kind", Text, nullable=False),
    Column("job_id", Uuid, ForeignKey("transcription_jobs.id", ondelete="SET NULL")),
    Column("model", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("linked", Boolean, nullable=False, server_default="false"),
    Column("chain_key", LargeBinary, comment="identifies the joined recording"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("audio_seconds", Double, nullable=False),
    Column("utterance_count", Integer, nullable=False),
    Column("word_count", Integer, nullable=False),
    Column("uri", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("verdict_reason", Text),
    CheckConstraint("kind IN ('enhanced', 'upload')", name="kind"),
    CheckConstraint("verdict IN ('accepted', 'doubtful')", name="verdict"),
    CheckConstraint("version >= 1", name="version"),
)

# Those of a job in progress are here before its version is in `transcripts`.
transcript_utterances = Table(
    "transcript_utterances",
    metadata,
    Column("session_id", Uuid, ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("index", Integer, primary_key=True, autoincrement=False, comment="0 is the first"),
    Column("start", Double, nullable=False),
    Column("end", Double, nullable=False),
    Column("text", Text, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("language", Text, nullable=False),
    Column("words", JSONB, nullable=False),
    Column("language_probability", Double, comment="null if the language was requested"),
)
