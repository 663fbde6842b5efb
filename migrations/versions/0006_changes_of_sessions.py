"""Changes of sessions, for watches

Triggers note them, so that the changes of every writer are noted: also those of a server of the release before, and of
an operator.

Revision: 0006
Follows: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The columns that clients see. Whether a session is resumed is in the row of the session that resumes it.
_SHOWN = (
    "status language model encoding sample_rate channels store_audio store_transcript enhance_on_end audio_uri"
    " transcript_uri enhancement_job_id audio_duration_seconds utterance_count word_count worker_id client_ip"
    " previous_session_id resume_from_seconds started_at ended_at error"
)


def _shown(row: str) -> str:
    return ", ".join([*(f"{row}.{name}" for name in _SHOWN.split()), f"{row}.deleted_at IS NULL"])


# What each kind of statement changes: the session, its tenant, and whether it was added, removed or changed its status.
# A soft-deleted session counts as removed; the removal of its row changes nothing more.
_TOUCHED = {
    "INSERT": """
        SELECT n.id AS session_id, n.tenant_id, true AS has_moved FROM new_rows AS n
        UNION ALL
        SELECT n.previous_session_id, n.tenant_id, false FROM new_rows AS n WHERE n.previous_session_id IS NOT NULL
    """,
    "UPDATE": f"""
        SELECT n.id AS session_id, n.tenant_id,
            (n.status, n.deleted_at IS NULL) IS DISTINCT FROM (o.status, o.deleted_at IS NULL) AS has_moved
        FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id
        WHERE (o.deleted_at IS NULL OR n.deleted_at IS NULL)
            AND ROW({_shown("n")}) IS DISTINCT FROM ROW({_shown("o")})
        UNION ALL
        SELECT p.id, n.tenant_id, false
        FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id,
            LATERAL (VALUES (n.previous_session_id), (o.previous_session_id)) AS p(id)
        WHERE p.id IS NOT NULL AND (n.previous_session_id, n.deleted_at IS NULL)
            IS DISTINCT FROM (o.previous_session_id, o.deleted_at IS NULL)
    """,  # noqa: S608 - no input
    "DELETE": """
        SELECT o.id AS session_id, o.tenant_id, true AS has_moved FROM old_rows AS o WHERE o.deleted_at IS NULL
        UNION ALL
        SELECT o.previous_session_id, o.tenant_id, false FROM old_rows AS o
        WHERE o.deleted_at IS NULL AND o.previous_session_id IS NOT NULL
    """,
}
_TRANSITIONS = {
    "INSERT": "NEW TABLE AS new_rows",
    "UPDATE": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "DELETE": "OLD TABLE AS old_rows",
}

# In the order of ids, so that two statements do not deadlock. The last transaction to commit is the one that is kept,
# even if its id is lower. The plan is cached: one made for a single row would compare each of a thousand with each.
_FUNCTION = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
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
    op.create_table(
        "session_changes",
        sa.Column("session_id", sa.Uuid(), nullable=False, comment="may be gone"),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False, comment="the transaction of its last change"),
        sa.Column("moved_xid", sa.BigInteger(), nullable=True, comment="the last by which it came, went or moved"),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_session_changes")),
    )
    op.create_index("ix_session_changes_tenant_id_xid", "session_changes", ["tenant_id", "xid"], unique=False)
    op.execute(
        "ALTER TABLE session_changes SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000)"
    )
    for event, touched in _TOUCHED.items():
        name = f"note_session_{event.lower()}"
        op.execute(_FUNCTION.format(name=name, touched=touched))
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON realtime_sessions"
            f" REFERENCING {_TRANSITIONS[event]} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
        )


def downgrade() -> None:
    for event in _TOUCHED:
        name = f"note_session_{event.lower()}"
        op.execute(f"DROP TRIGGER {name} ON realtime_sessions")
        op.execute(f"DROP FUNCTION {name}()")
    op.drop_table("session_changes")
