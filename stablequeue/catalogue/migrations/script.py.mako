"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Change the schema; add the revision to `stablequeue.catalogue.revisions` too."""
    ${upgrades if upgrades else "op.execute(sa.text(''))"}
