"""When a version's description or stage last changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, where the first migration did not make it already."""
    if "updated_at" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("assets")}:
        op.add_column("assets", sa.Column("updated_at", sa.Float))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("assets", "updated_at")
