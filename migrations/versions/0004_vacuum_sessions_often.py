"""Vacuum the table of sessions often

The list and its total are read from an index alone, which holds only for pages that a vacuum has seen. By default a
vacuum runs when a fifth of the table is new, and the newest rows are the ones that are listed.

Revision: 0004
Follows: 0003
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE realtime_sessions"
        " SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_scale_factor = 0.02)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE realtime_sessions RESET (autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_scale_factor)"
    )
