"""What annotators look at now."""

from alembic import op

from everloop.store.schema import queue_claims

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table, where the first migration did not make it already."""
    queue_claims.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop the table."""
    queue_claims.drop(op.get_bind(), checkfirst=True)
