"""Which rows or documents came into what."""

from alembic import op

from everloop.store.schema import derivations

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table, where the first migration did not make it already."""
    derivations.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop the table."""
    derivations.drop(op.get_bind(), checkfirst=True)
