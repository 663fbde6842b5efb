"""API keys, tokens, and the limits of a tenant

Revision: 0005
Follows: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SCOPES = "'realtime', 'sessions:read', 'sessions:write', 'admin'"
_CHECKS = {
    "rates": "max_sessions >= 0 AND requests_per_second > 0",
    "times": "max_session_seconds > 0 AND idle_timeout_seconds > 0",
}
_LIMITS = ("max_sessions", "requests_per_second", "max_session_seconds", "idle_timeout_seconds")


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column("max_sessions", sa.Integer(), nullable=True, comment="that run at a time, on all servers"),
    )
    op.add_column("tenants", sa.Column("requests_per_second", sa.Double(), nullable=True, comment="of one server"))
    op.add_column("tenants", sa.Column("max_session_seconds", sa.Double(), nullable=True))
    op.add_column("tenants", sa.Column("idle_timeout_seconds", sa.Double(), nullable=True))
    # Validated at once: a row for each customer takes no time to read.
    for name, check in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_tenants_{name}"), "tenants", check)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="the first characters of the secret"),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_by",
            sa.Uuid(),
            nullable=True,
            comment="the key that made it, whether or not it is still there; NULL: the operator",
        ),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("ck_api_keys_secret_hash")),
        sa.CheckConstraint(f"scopes <@ ARRAY[{_SCOPES}] AND scopes <> '{{}}'", name=op.f("ck_api_keys_scopes")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_keys_secret_hash")),
    )
    op.create_index(
        "ix_api_keys_list",
        "api_keys",
        ["tenant_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "realtime_tokens",
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256"),
        sa.Column("key_id", sa.Uuid(), nullable=False, comment="that made it"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("ck_realtime_tokens_secret_hash")),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.id"], name=op.f("fk_realtime_tokens_key_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("secret_hash", name=op.f("pk_realtime_tokens")),
    )
    op.create_index("ix_realtime_tokens_expires_at", "realtime_tokens", ["expires_at"], unique=False)
    op.create_index("ix_realtime_tokens_key_id", "realtime_tokens", ["key_id"], unique=False)


def downgrade() -> None:
    op.drop_table("realtime_tokens")
    op.drop_table("api_keys")
    for column in _LIMITS:
        op.drop_column("tenants", column)
