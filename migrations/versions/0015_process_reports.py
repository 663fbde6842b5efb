"""Reports of processes, for the status of the deployment

Servers and workers of the previous release write none: they are listed by their leases, without figures.

Revision: 0015
Follows: 0014
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015"
down_revision: str | Sequence[str] | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "process_reports",
        sa.Column("id", sa.Text(), nullable=False, comment="of the process, as in workers"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, comment="as in workers"),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "report",
            postgresql.JSONB(),
            nullable=False,
            comment="a Process of the contract, without its lease",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_process_reports")),
    )


def downgrade() -> None:
    op.drop_table("process_reports")
