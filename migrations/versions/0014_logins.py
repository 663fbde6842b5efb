"""Logins of browsers

Revision: 0014
Follows: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "logins",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("key_id", sa.Uuid(), nullable=False, comment="that made it, whose scopes it has"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("user_agent", sa.Text(), server_default="", nullable=False, comment="what the browser called itself"),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("ck_logins_secret_hash")),
        sa.CheckConstraint("char_length(user_agent) <= 200", name=op.f("ck_logins_user_agent")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_logins_key_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logins")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_logins_secret_hash")),
    )
    op.create_index(
        "ix_logins_list", "logins", ["key_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")]
    )
    op.create_index("ix_logins_expires_at", "logins", ["expires_at"])


def downgrade() -> None:
    op.drop_table("logins")
