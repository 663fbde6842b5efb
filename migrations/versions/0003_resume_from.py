"""Where in the session before it a session begins

Revision: 0003
Follows: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("realtime_sessions", sa.Column("resume_from_seconds", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("realtime_sessions", "resume_from_seconds")
