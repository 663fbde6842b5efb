"""Batch jobs, and versions of transcripts

Servers of the previous release do not use the new tables and columns: what they write are live sessions.

Triggers note the changes of jobs as changes of their sessions, for watches, and notify workers of queued jobs.

Revision: 0012
Follows: 0011
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SHOWN = (
    "status language model encoding sample_rate channels store_audio store_transcript enhance_on_end audio_uri"
    " transcript_uri enhancement_job_id audio_duration_seconds utterance_count word_count worker_id client_ip"
    " previous_session_id resume_from_seconds started_at ended_at error"
)
_ADDED = " source current_version"


def _shown(row: str, names: str) -> str:
    return ", ".join([*(f"{row}.{name}" for name in names.split()), f"{row}.deleted_at IS NULL"])


def _touched(names: str) -> str:
    """What an update of sessions changes, as in migration 0006."""
    return f"""
        SELECT n.id AS session_id, n.tenant_id,
            (n.status, n.deleted_at IS NULL) IS DISTINCT FROM (o.status, o.deleted_at IS NULL) AS has_moved
        FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id
        WHERE (o.deleted_at IS NULL OR n.deleted_at IS NULL)
            AND ROW({_shown("n", names)}) IS DISTINCT FROM ROW({_shown("o", names)})
        UNION ALL
        SELECT p.id, n.tenant_id, false
        FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id,
            LATERAL (VALUES (n.previous_session_id), (o.previous_session_id)) AS p(id)
        WHERE p.id IS NOT NULL AND (n.previous_session_id, n.deleted_at IS NULL)
            IS DISTINCT FROM (o.previous_session_id, o.deleted_at IS NULL)
    """  # noqa: S608 - no input


# A change of a job or of a version is a change of its session. Of a session that is soft-deleted, or whose deletion
# deletes the job, nothing is noted.
_NOTE_JOBS = """
    SELECT n.session_id, s.tenant_id, false AS has_moved
    FROM (SELECT DISTINCT session_id FROM new_rows) AS n
    JOIN realtime_sessions AS s ON s.id = n.session_id AND s.deleted_at IS NULL
"""
_NOTE_VERSIONS = """
    SELECT n.session_id, s.tenant_id, false AS has_moved
    FROM (SELECT DISTINCT session_id FROM {rows}) AS n
    JOIN realtime_sessions AS s ON s.id = n.session_id AND s.deleted_at IS NULL
"""

_FUNCTION = """
    CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = {nested} AS $$
    DECLARE
        this bigint := pg_current_xact_id()::text::bigint;
        tenant uuid;
    BEGIN
        FOR tenant IN
            WITH touched AS ({touched}),
            noted AS (
                INSERT INTO session_changes AS c (session_id, tenant_id, xid, moved_xid, changed_at)
                SELECT t.session_id, t.tenant_id, this, CASE WHEN bool_or(t.has_moved) THEN this END, clock_timestamp()
                FROM touched AS t GROUP BY t.session_id, t.tenant_id ORDER BY t.session_id
                ON CONFLICT (session_id) DO UPDATE SET
                    xid = excluded.xid,
                    moved_xid = coalesce(excluded.moved_xid, c.moved_xid),
                    changed_at = excluded.changed_at
                RETURNING c.tenant_id
            )
            SELECT DISTINCT n.tenant_id FROM noted AS n
        LOOP
            PERFORM pg_notify('dalston_sessions', tenant::text);
        END LOOP;
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    op.add_column("tenants", sa.Column("max_jobs", sa.Integer(), comment="that run at a time, on all workers"))
    op.add_column("tenants", sa.Column("max_queued_jobs", sa.Integer()))
    op.add_column("tenants", sa.Column("max_upload_bytes", sa.BigInteger(), comment="of one uploaded file"))
    op.create_check_constraint("jobs", "tenants", "max_jobs >= 0 AND max_queued_jobs >= 0 AND max_upload_bytes >= 0")
    op.add_column(
        "workers",
        sa.Column("kind", sa.Text(), nullable=False, server_default="server", comment="what the process does"),
    )
    op.add_column("workers", sa.Column("host", sa.Text(), comment="the machine it runs on"))
    op.add_column(
        "workers",
        sa.Column(
            "is_behind",
            sa.Boolean(),
            nullable=False,
            server_default="false",
            comment="live sessions need all of the machine",
        ),
    )
    op.create_check_constraint("kind", "workers", "kind IN ('server', 'worker')")
    op.alter_column(
        "realtime_sessions",
        "enhancement_job_id",
        existing_type=sa.Text(),
        comment="the newest batch job of the recording; a trigger writes it",
    )
    op.add_column("realtime_sessions", sa.Column("source", sa.Text(), nullable=False, server_default="live"))
    op.add_column("realtime_sessions", sa.Column("current_version", sa.Integer(), comment="of the transcript; null: 1"))
    op.add_column(
        "realtime_sessions",
        sa.Column("requested_language", sa.Text(), comment="ISO 639-1 or auto; null: of an earlier release"),
    )
    op.add_column(
        "realtime_sessions",
        sa.Column(
            "vocabulary", sa.ARRAY(sa.Text()), nullable=False, server_default="{}", comment="for the job of its end"
        ),
    )
    op.add_column("realtime_sessions", sa.Column("media_type", sa.Text(), comment="of an uploaded file"))
    op.add_column(
        "realtime_sessions", sa.Column("file_name", sa.Text(), comment="of an uploaded file, as its client has it")
    )
    op.create_check_constraint("source", "realtime_sessions", "source IN ('live', 'upload')")
    _create_jobs()
    _create_transcripts()
    _create_triggers()


def _create_jobs() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "transcription_jobs",
        sa.Column(
            "id",
            sa.Uuid(),
            primary_key=True,
            comment="that of the session where its end created the job; else a UUIDv7",
        ),
        sa.Column("tenant_id", sa.Uuid(), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("session_id", sa.Uuid(), sa.ForeignKey("realtime_sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, server_default="queued"),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False, comment="requested: ISO 639-1, or auto"),
        sa.Column("vocabulary", sa.ARRAY(sa.Text()), nullable=False, server_default="{}"),
        sa.Column("linked", sa.Boolean(), nullable=False, server_default="false"),
        sa.Column("requested_by", sa.Uuid(), comment="the key; null: the end of the session"),
        sa.Column("fingerprint", sa.LargeBinary(), comment="SHA-256 of an uploaded file and its configuration"),
        sa.Column("created_at", time, nullable=False, server_default=sa.func.now()),
        sa.Column("due_at", time, nullable=False, server_default=sa.func.now()),
        sa.Column("started_at", time, comment="its last claim"),
        sa.Column("ended_at", time),
        sa.Column("cancel_requested_at", time),
        sa.Column("worker_id", sa.Text(), comment="the process that does it"),
        sa.Column(
            "claim",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="counts claims: a fence against earlier ones",
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="claims since a window was last finished",
        ),
        sa.Column("audio_seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("done_seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("done_windows", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("rate", sa.Double(), comment="audio seconds per second, of this job"),
        sa.Column("step", sa.Text()),
        sa.Column("plan", postgresql.JSONB(), comment="language and windows, as listening found them"),
        sa.Column(
            "chain", sa.ARRAY(sa.Uuid()), comment="the sessions of the joined recording, oldest first, when it began"
        ),
        sa.Column("chain_key", sa.LargeBinary(), comment="identifies that recording"),
        sa.Column("version", sa.Integer(), comment="of the transcript that it writes, from its first window on"),
        sa.Column("error", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.CheckConstraint("kind IN ('enhance', 'upload')", name="kind"),
        sa.CheckConstraint("status IN ('queued', 'running', 'completed', 'failed', 'canceled')", name="status"),
        sa.CheckConstraint("(status = 'running') = (worker_id IS NOT NULL)", name="worker_id"),
        sa.CheckConstraint("(status IN ('completed', 'failed', 'canceled')) = (ended_at IS NOT NULL)", name="ended_at"),
    )
    op.create_index(
        "ix_transcription_jobs_unended",
        "transcription_jobs",
        ["session_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'enhance' AND status IN ('queued', 'running')"),
    )
    op.create_index("ix_transcription_jobs_session", "transcription_jobs", ["session_id", sa.text("created_at DESC")])
    op.create_index(
        "ix_transcription_jobs_list",
        "transcription_jobs",
        ["tenant_id", sa.text("created_at DESC"), sa.text("id DESC")],
    )
    op.create_index("ix_transcription_jobs_turn", "transcription_jobs", ["tenant_id", "started_at"])
    op.create_index(
        "ix_transcription_jobs_due",
        "transcription_jobs",
        ["status", "due_at"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_transcription_jobs_fingerprint",
        "transcription_jobs",
        ["fingerprint"],
        postgresql_where=sa.text("fingerprint IS NOT NULL"),
    )
    # Progress is written every few seconds.
    op.execute("ALTER TABLE transcription_jobs SET (fillfactor = 70, autovacuum_vacuum_threshold = 500)")


def _create_transcripts() -> None:
    op.create_table(
        "transcripts",
        sa.Column("session_id", sa.Uuid(), sa.ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column(
            "version",
            sa.Integer(),
            primary_key=True,
            autoincrement=False,
            comment="2 and later; 1 for an uploaded file",
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("transcription_jobs.id", ondelete="SET NULL")),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("linked", sa.Boolean(), nullable=False, server_default="false"),
        sa.Column("chain_key", sa.LargeBinary(), comment="identifies the joined recording"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("audio_seconds", sa.Double(), nullable=False),
        sa.Column("utterance_count", sa.Integer(), nullable=False),
        sa.Column("word_count", sa.Integer(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("verdict_reason", sa.Text()),
        sa.CheckConstraint("kind IN ('enhanced', 'upload')", name="kind"),
        sa.CheckConstraint("verdict IN ('accepted', 'doubtful')", name="verdict"),
        sa.CheckConstraint("version >= 1", name="version"),
    )
    op.create_table(
        "transcript_utterances",
        sa.Column("session_id", sa.Uuid(), sa.ForeignKey("realtime_sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("index", sa.Integer(), primary_key=True, autoincrement=False, comment="0 is the first"),
        sa.Column("start", sa.Double(), nullable=False),
        sa.Column("end", sa.Double(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("words", postgresql.JSONB(), nullable=False),
        sa.Column("language_probability", sa.Double(), comment="null if the language was requested"),
    )


def _create_triggers() -> None:
    op.execute(_FUNCTION.format(name="note_session_update", touched=_touched(_SHOWN + _ADDED), nested="off"))
    op.execute(_FUNCTION.format(name="note_jobs", touched=_NOTE_JOBS, nested="on"))
    for event in ("INSERT", "UPDATE"):
        op.execute(
            f"CREATE TRIGGER note_jobs_{event.lower()} AFTER {event} ON transcription_jobs"
            " REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION note_jobs()"
        )
    for event, rows in (("INSERT", "new_rows"), ("DELETE", "old_rows")):
        name = f"note_transcripts_{event.lower()}"
        transition = f"{'NEW' if event == 'INSERT' else 'OLD'} TABLE AS {rows}"
        op.execute(_FUNCTION.format(name=name, touched=_NOTE_VERSIONS.format(rows=rows), nested="on"))
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON transcripts"
            f" REFERENCING {transition} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )
    op.execute("""
        CREATE FUNCTION announce_job() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.kind = 'enhance' AND TG_OP = 'INSERT' THEN
                UPDATE realtime_sessions SET enhancement_job_id = 'job_' || replace(NEW.id::text, '-', '')
                WHERE id = NEW.session_id;
            END IF;
            IF NEW.status = 'queued' THEN
                PERFORM pg_notify('dalston_jobs', '');
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER announce_job AFTER INSERT OR UPDATE OF status ON transcription_jobs"
        " FOR EACH ROW EXECUTE FUNCTION announce_job()"
    )


def downgrade() -> None:
    op.drop_table("transcript_utterances")
    op.drop_table("transcripts")
    op.drop_table("transcription_jobs")
    for name in ("note_jobs", "note_transcripts_insert", "note_transcripts_delete", "announce_job"):
        op.execute(f"DROP FUNCTION {name}()")
    op.execute(_FUNCTION.format(name="note_session_update", touched=_touched(_SHOWN), nested="off"))
    for column in ("file_name", "media_type", "vocabulary", "requested_language", "current_version", "source"):
        op.drop_column("realtime_sessions", column)
    op.alter_column("realtime_sessions", "enhancement_job_id", existing_type=sa.Text(), comment=None)
    for column in ("is_behind", "host", "kind"):
        op.drop_column("workers", column)
    for column in ("max_upload_bytes", "max_queued_jobs", "max_jobs"):
        op.drop_column("tenants", column)
