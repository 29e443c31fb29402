"""Annotation queues."""

from alembic import op

from everloop.store.schema import queue_items, queue_labels, queues

revision = "0005"
down_revision = "0004"
TABLES = (queues, queue_items, queue_labels)


def upgrade() -> None:
    """Make the tables, where the first migration did not make them already."""
    for table in TABLES:
        table.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drop the tables."""
    for table in TABLES:
        table.drop(op.get_bind(), checkfirst=True)
