"""Expiry of sessions

Revision: 0013
Follows: 0012

Only uploaded files that are not to be kept expire so far. Servers of the previous release let them stay.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "realtime_sessions",
        sa.Column("expires_at", sa.DateTime(timezone=True), comment="when it is deleted, once its job has ended"),
    )
    # Not built concurrently, for the reason given in 0002; it is empty.
    op.create_index(
        "ix_realtime_sessions_expires_at",
        "realtime_sessions",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_column("realtime_sessions", "expires_at")
