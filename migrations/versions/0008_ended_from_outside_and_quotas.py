"""Requests to end sessions, and quotas of storage

Revision: 0008
Follows: 0007

Both columns are nullable, and servers of the previous release use neither: they ignore requests to end their sessions,
and enforce no quota.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "realtime_sessions",
        sa.Column(
            "end_requested_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when somebody asked for its end; its server looks every few seconds",
        ),
    )
    # Validated at once: there is one row a tenant, and the column is new.
    op.add_column(
        "tenants",
        sa.Column(
            "max_storage_bytes", sa.BigInteger(), nullable=True, comment="of stored audio, all sessions together"
        ),
    )
    op.create_check_constraint(op.f("ck_tenants_storage"), "tenants", "max_storage_bytes >= 0")


def downgrade() -> None:
    op.drop_column("tenants", "max_storage_bytes")
    op.drop_column("realtime_sessions", "end_requested_at")
