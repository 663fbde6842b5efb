"""Resume points, and the progress of sessions

Revision: 0003
Follows: 0002

Servers of the previous release can run against this schema: they use neither column, and never link sessions.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "realtime_sessions",
        sa.Column("resume_from_seconds", sa.Double(), nullable=True, comment="in the audio of the previous session"),
    )
    op.add_column(
        "realtime_sessions",
        sa.Column("processed_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
    )


def downgrade() -> None:
    for column in ("processed_seconds", "resume_from_seconds"):
        op.drop_column("realtime_sessions", column)
