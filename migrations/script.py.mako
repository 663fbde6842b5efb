"""${message}

Revision: ${up_revision}
Follows: ${down_revision | comma,n}

Zero downtime: the servers of the release before run against this schema until the last of them is replaced.
- Add columns as nullable or with a constant default; make them NOT NULL in a later release, by a validated CHECK first.
- Never rename or retype a column, and never drop one that the release before still reads: add, copy, switch, then drop.
- Build indexes on a table that is in use with postgresql_concurrently=True inside op.get_context().autocommit_block().
- Add foreign keys and CHECKs as NOT VALID and validate them in a migration of their own.
- Move data in batches, outside of a migration that changes the schema.
- A statement gets 4 s for its lock and 60 s to run: raise the latter here, with the reason, where it must be.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | Sequence[str] | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
