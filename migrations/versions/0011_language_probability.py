"""The probability of the detected language of finals

Revision: 0011
Follows: 0010

The column is nullable, and servers of the previous release do not use it: their finals have no probability.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "session_utterances",
        sa.Column("language_probability", sa.Double(), nullable=True, comment="null if the language was requested"),
    )


def downgrade() -> None:
    op.drop_column("session_utterances", "language_probability")
